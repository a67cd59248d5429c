// What tutorials write in Go: a Gin handler that reads the upstream line by line and flushes each event.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"
)

func main() {
	upstream := flag.String("upstream", "", "the upstream's URL, ending in /v1")
	flag.Parse()
	gin.SetMode(gin.ReleaseMode)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10000, DisableCompression: true}}
	router := gin.New()
	router.POST("/v1/chat/completions", func(c *gin.Context) {
		asked, _ := http.NewRequestWithContext(c.Request.Context(), "POST", *upstream+"/chat/completions", c.Request.Body)
		asked.Header.Set("Content-Type", "application/json")
		response, err := client.Do(asked)
		if err != nil {
			c.JSON(http.StatusBadGateway, gin.H{"error": err.Error()})
			return
		}
		defer response.Body.Close()
		c.Header("Content-Type", "text/event-stream")
		c.Header("Cache-Control", "no-cache")
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(make([]byte, 64*1024), 1024*1024)
		for lines.Scan() {
			if len(lines.Bytes()) == 0 {
				continue
			}
			if _, err := fmt.Fprintf(c.Writer, "%s\n\n", lines.Text()); err != nil {
				return
			}
			c.Writer.Flush()
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("relay http://%s\n", listener.Addr())
	router.RunListener(listener)
}
