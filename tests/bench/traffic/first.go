package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"time"
)

// first opens short streams one after the other, beside whatever load there is, and tells how long the first event took from
// the asking.
func first(args []string) {
	flags := flag.NewFlagSet("first", flag.ExitOnError)
	url := flags.String("url", "", "where to post chat completions")
	count := flags.Int("count", 50, "streams to open")
	every := flags.Float64("every", 0.1, "seconds from one to the next")
	flags.Parse(args)

	client := newClient(1)
	results := make([]result, *count)
	start := time.Now()
	for i := range results {
		time.Sleep(time.Until(start.Add(spread(i, *every))))
		results[i] = one(context.Background(), client, *url, request(3, 0, 24, 0), 3, during{}, false)
	}
	json.NewEncoder(os.Stdout).Encode(summary(results, start, *count*3))
}
