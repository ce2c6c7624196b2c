package coremain

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestD20Return: a source that connects again whenever its connections are ended, with more of them than the process has descriptors, keeps
// nobody else from being answered; and the log doesn't fill.
func TestD20Return(t *testing.T) {
	t.Parallel()
	const room, crowd, answers = 256, 500, 15
	s := startTransports(t, room)
	query, err := new(dns.Msg).SetQuestion("x.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range crowd {
		all.Go(func() {
			for {
				d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
				if conn, err := d.Dial("tcp", s.dns); err == nil {
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						if _, err := (&dns.Conn{Conn: conn}).Write(query); err == nil {
							_, _ = io.Copy(io.Discard, conn)
						}
					}()
					select {
					case <-stop:
					case <-ended:
					}
					conn.Close()
					<-ended
				}
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	s.await("connections of clients of DNS were ended")
	began := time.Now()
	var times int
	for time.Since(began) < 2*time.Second || times < answers && time.Since(began) < 12*time.Second { // they return meanwhile, again and again
		c := dns.Client{Net: "tcp", Timeout: 5 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.7")}}}
		if m, _, err := c.Exchange(new(dns.Msg).SetQuestion("x.example.", dns.TypeA), s.dns); err != nil || len(m.Answer) != 1 {
			t.Errorf("question %d of another source: %v %v", times, m, err)
			break
		}
		times++
	}
	took := time.Since(began)
	close(stop)
	all.Wait()
	t.Logf("%d answers in %s", times, took.Round(time.Millisecond))
	if times < answers {
		t.Errorf("another source had %d answers in %s", times, took)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if said := strings.Count(strings.Join(s.lines, "\n"), "connections of clients of DNS were ended"); said > 1+int(time.Since(began)/tellEvery)+1 {
		t.Errorf("it was said %d times", said)
	}
}
