package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// hold opens streams that end only when standard input does: idle ones, slow readers, or clients that never read. It says
// how many it has and how many bytes they took when a line comes in, so that whoever measures knows that they are there.
func hold(args []string) {
	flags := flag.NewFlagSet("hold", flag.ExitOnError)
	url := flags.String("url", "", "where to post chat completions")
	streams := flags.Int("streams", 100, "streams to open")
	events := flags.Int("events", 1000, "events of each stream")
	pace := flags.Float64("pace", 0, "events per second of each stream; 0: as fast as they are taken")
	size := flags.Int("size", 24, "bytes of content of each event")
	rate := flags.Float64("rate", -1, "bytes per second that each client reads; 0: none; -1: whatever comes")
	opening := flags.Float64("opening", 1, "seconds over which the streams are opened")
	flags.Parse(args)

	client := newClient(*streams)
	cut, cancel := context.WithCancel(context.Background())
	body := request(*events, *pace, *size, 0)
	type state struct {
		open  bool
		bytes int64
	}
	states := make([]state, *streams)
	var mutex sync.Mutex
	for i := 0; i < *streams; i++ {
		at := spread(i, *opening/float64(*streams))
		go func(i int) {
			time.Sleep(at)
			response, err := post(cut, client, *url, body)
			if err != nil || response.StatusCode != 200 {
				return
			}
			defer response.Body.Close()
			took := func(n int) {
				mutex.Lock()
				states[i] = state{true, states[i].bytes + int64(n)}
				mutex.Unlock()
			}
			took(0)
			if *rate == 0 {
				<-cut.Done()
				return
			}
			buffer := make([]byte, 4096)
			for {
				n, err := response.Body.Read(buffer)
				took(n)
				if err != nil {
					mutex.Lock()
					states[i].open = false
					mutex.Unlock()
					return
				}
				if *rate > 0 {
					time.Sleep(time.Duration(float64(n) / *rate * float64(time.Second)))
				}
			}
		}(i)
	}
	asked := bufio.NewReader(os.Stdin)
	for {
		if _, err := asked.ReadString('\n'); err == io.EOF {
			cancel()
			return
		}
		open, bytes := 0, int64(0)
		mutex.Lock()
		for _, each := range states {
			if each.open {
				open++
			}
			bytes += each.bytes
		}
		mutex.Unlock()
		line, _ := json.Marshal(map[string]any{"open": open, "bytes": bytes})
		fmt.Println(string(line))
	}
}
