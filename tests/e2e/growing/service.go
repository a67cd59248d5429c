// An event stream that never ends. With -keep, each stream leaves so many bytes behind.
package main

import (
	"flag"
	"net/http"
	"time"
)

var kept [][]byte

func main() {
	port := flag.String("port", "0", "")
	keep := flag.Int("keep", 0, "bytes")
	flag.Parse()
	http.ListenAndServe("127.0.0.1:"+*port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *keep > 0 {
			one := make([]byte, *keep)
			for i := range one {
				one[i] = byte(i)
			}
			kept = append(kept, one)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte("data: {}\n\n")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}))
}
