// Traffic for the benchmarks: an upstream that costs next to nothing, and clients that check every byte.
//
//	traffic upstream -listen 127.0.0.1:0
//	traffic load -url http://127.0.0.1:8080/v1/chat/completions -streams 100 -seconds 5 -pace 20 -events 0
//
// Python would be the limit of what it measures; this is compiled. Both ends agree on the content: event number i of a
// stream carries i, the wall clock in nanoseconds, and filler, in OpenAI's chunk JSON. The client counts what is missing,
// out of order or damaged, so that a relay cannot be fast by losing something.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "upstream":
			upstream(os.Args[2:])
			return
		case "load":
			load(os.Args[2:])
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: traffic upstream|load [flags]")
	os.Exit(2)
}
