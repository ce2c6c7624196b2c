package coremain

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestD20Return: a source that connects again whenever its connections are ended, with more of them than the process has descriptors, keeps
// nobody else from being answered promptly: the kernel drops what it sends to connect. And the log doesn't fill.
func TestD20Return(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp-tls"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			checkReturn(t, network)
		})
	}
}

func checkReturn(t *testing.T, network string) {
	const room, crowd, answers = 256, 500, 15
	s := startTransports(t, room)
	at := map[string]string{"tcp": s.dns, "tcp-tls": s.tls}[network]
	query, err := new(dns.Msg).SetQuestion("x.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	began, stop := time.Now(), make(chan struct{})
	var all sync.WaitGroup
	var unheard atomic.Int64 // of the source
	for range crowd {
		all.Go(func() {
			for {
				d := net.Dialer{Timeout: 900 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}} // before it is tried again
				if conn, err := d.Dial("tcp", at); err == nil {
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						if network == "tcp-tls" { // it is waited for its hello
							_, _ = io.Copy(io.Discard, conn)
						} else if _, err := (&dns.Conn{Conn: conn}).Write(query); err == nil {
							_, _ = io.Copy(io.Discard, conn)
						}
					}()
					select {
					case <-stop:
					case <-ended:
					}
					conn.Close()
					<-ended
				} else if errors.Is(err, os.ErrDeadlineExceeded) {
					unheard.Add(1)
				}
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	defer func() {
		close(stop)
		all.Wait()
	}()
	paused := regexp.MustCompile(`(?m)^postern_dns_source_pauses_total [1-9]`)
	eventually(t, 10*time.Second, "the source has no pause", func() bool {
		text, err := s.scrape()
		return err == nil && paused.MatchString(text)
	})
	asked := time.Now()
	for i := range answers { // the source comes again meanwhile
		c := dns.Client{Net: network, Timeout: 5 * time.Second, TLSConfig: &tls.Config{InsecureSkipVerify: true},
			Dialer: &net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.7")}}}
		if m, _, err := c.Exchange(new(dns.Msg).SetQuestion("x.example.", dns.TypeA), at); err != nil || len(m.Answer) != 1 {
			t.Errorf("question %d of another source: %v %v", i, m, err)
			break
		}
	}
	took := time.Since(asked)
	t.Logf("%d answers in %s, %s from the start; %d connections were never begun", answers, took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), unheard.Load())
	if took > 12*time.Second {
		t.Errorf("another source had its answers in %s", took)
	}
	eventually(t, 5*time.Second, "the source connects all the time", func() bool { return unheard.Load() > 0 })
	if text, err := s.scrape(); err != nil || !regexp.MustCompile(`(?m)^postern_dns_clients_ended_total\{reason="source"\} [1-9]`).MatchString(text) {
		t.Errorf("no connection of the source is counted: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if said := strings.Count(strings.Join(s.lines, "\n"), "connections of clients of DNS were ended"); said > 1+int(time.Since(began)/tellEvery)+1 {
		t.Errorf("it was said %d times", said)
	}
}

// scrape returns the metrics, by a connection that may be ended as others.
func (s *transports) scrape() (string, error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(s.metrics)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}
