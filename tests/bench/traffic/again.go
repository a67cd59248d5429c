package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"sync"
	"time"
)

// again has some clients open one short stream after the other, each as soon as the one before it has ended: what is measured
// is mostly the openings and the ends.
func again(args []string) {
	flags := flag.NewFlagSet("again", flag.ExitOnError)
	url := flags.String("url", "", "where to post chat completions")
	clients := flags.Int("streams", 32, "clients at once")
	events := flags.Int("events", 20, "events of each stream")
	seconds := flags.Float64("seconds", 5, "no stream begins after this")
	whole := flags.Bool("whole", false, "read each answer to its very end, and use its connection again")
	flags.Parse(args)

	client := newClient(*clients)
	body := request(*events, 0, 24, 0)
	// A peer that answers none of them must not hold the benchmark up.
	cut, cancel := context.WithTimeout(context.Background(), time.Duration((*seconds+10)*float64(time.Second)))
	defer cancel()
	var mutex sync.Mutex
	var results []result
	var waiting sync.WaitGroup
	start := time.Now()
	for i := 0; i < *clients; i++ {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			for time.Since(start).Seconds() < *seconds {
				r := one(cut, client, *url, body, *events, throughout, *whole)
				mutex.Lock()
				results = append(results, r)
				mutex.Unlock()
				if r.problem != "" {
					time.Sleep(10 * time.Millisecond) // a refusal costs less than a stream
				}
			}
		}()
	}
	waiting.Wait()
	json.NewEncoder(os.Stdout).Encode(summary(results, start, len(results)**events))
}
