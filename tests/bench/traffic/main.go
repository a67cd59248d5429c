// Traffic for the benchmarks: an upstream that costs next to nothing, and clients that check every byte.
//
//	traffic upstream
//	traffic load -url http://127.0.0.1:8080/v1/chat/completions -streams 100 -pace 20 -events 160
//	traffic again|first|hold|leave -url ...     clients that open one stream after the other; one stream now and then; streams that
//	                                            stay; clients that leave
//	traffic raw -upstream http://...      a relay in Go, to compare with
//
// Python would be the limit of what it measures; this is compiled. Both ends agree on the content: event number i of a
// stream carries i, the wall clock in nanoseconds, and filler, in OpenAI's chunk JSON. The client counts what is missing,
// out of order or damaged, so that a relay cannot be fast by losing something.
package main

import (
	"fmt"
	"os"
	"syscall"
)

var commands = map[string]func([]string){
	"upstream": upstream, "load": load, "again": again, "first": first, "hold": hold, "leave": leave, "raw": raw,
}

func main() {
	allowFiles()
	if len(os.Args) > 1 {
		if command, ok := commands[os.Args[1]]; ok {
			command(os.Args[2:])
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: traffic upstream|load|again|first|hold|leave|raw [flags]")
	os.Exit(2)
}

// allowFiles raises the soft limit of open files to the hard one: thousands of streams are thousands of sockets.
func allowFiles() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}
