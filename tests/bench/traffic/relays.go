package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
)

// raw is the least that Go can do: a handler that copies the upstream's body and flushes what each read gave.
func raw(args []string) {
	flags := flag.NewFlagSet("raw", flag.ExitOnError)
	upstream := flags.String("upstream", "", "the upstream's URL, ending in /v1")
	flags.Parse(args)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Printf("relay http://%s\n", listener.Addr())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10000, DisableCompression: true}}
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		asked, _ := http.NewRequestWithContext(r.Context(), "POST", *upstream+"/chat/completions", r.Body)
		asked.Header.Set("Content-Type", "application/json")
		response, err := client.Do(asked)
		if err != nil {
			http.Error(w, err.Error(), 502)
			return
		}
		defer response.Body.Close()
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(response.StatusCode)
		buffer := make([]byte, 32*1024)
		for {
			n, err := response.Body.Read(buffer)
			if n > 0 {
				if _, err := w.Write(buffer[:n]); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
			if err != nil {
				return
			}
		}
	})
	http.Serve(listener, nil)
}
