package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// leave opens paced streams and leaves each of them at a moment of its own, in the middle of it. The upstream tells when its
// side of each was closed: what lies between is what the relay needed to notice and to pass it on.
func leave(args []string) {
	flags := flag.NewFlagSet("leave", flag.ExitOnError)
	url := flags.String("url", "", "where to post chat completions")
	upstream := flags.String("upstream", "", "the upstream's base URL, which tells when streams were closed")
	streams := flags.Int("streams", 100, "streams at once")
	pace := flags.Float64("pace", 20, "events per second of each stream")
	seconds := flags.Float64("seconds", 8, "for how long streams are opened and left")
	flags.Parse(args)

	client := newClient(*streams)
	var mutex sync.Mutex
	left := map[int]int64{}
	problems := map[string]int{}
	var waiting sync.WaitGroup
	start := time.Now()
	base := int(start.UnixNano() / 1000 % 1e9 * 100000)
	for i := 0; i < *streams; i++ {
		waiting.Add(1)
		go func(i int) {
			defer waiting.Done()
			random := rand.New(rand.NewSource(int64(i)))
			for round := 0; time.Since(start).Seconds() < *seconds; round++ {
				id := base + round**streams + i
				stay := time.Duration((0.5 + random.Float64()) * float64(time.Second))
				gone, problem := visit(client, *url, request(100000, *pace, 24, id), stay)
				mutex.Lock()
				if problem != "" {
					problems[problem]++
				} else {
					left[id] = gone.UnixNano()
				}
				mutex.Unlock()
			}
		}(i)
	}
	waiting.Wait()
	time.Sleep(2 * time.Second)

	response, err := http.Get(*upstream + "/closed")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer response.Body.Close()
	closed := map[int]int64{}
	json.NewDecoder(response.Body).Decode(&closed)
	var delays []float64
	open := 0
	for id, gone := range left {
		if at, ok := closed[id]; ok {
			delays = append(delays, float64(at-gone)/1e6)
		} else {
			open++
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"left": len(left), "never_closed": open, "close_ms": quantiles(delays), "problems": problems,
	})
}

// visit takes a stream for a while, and closes the connection.
func visit(client *http.Client, url, body string, stay time.Duration) (gone time.Time, problem string) {
	cut, cancel := context.WithCancel(context.Background())
	defer cancel()
	response, err := post(cut, client, url, body)
	if err != nil {
		return gone, "connect: " + errorKind(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		return gone, fmt.Sprintf("status %d", response.StatusCode)
	}
	timer := time.AfterFunc(stay, func() {
		gone = time.Now()
		cancel()
	})
	defer timer.Stop()
	buffer := make([]byte, 32*1024)
	for {
		if _, err := response.Body.Read(buffer); err != nil {
			if !strings.Contains(err.Error(), "context canceled") {
				return gone, "broke off: " + errorKind(err)
			}
			return gone, ""
		}
	}
}
