package integration

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdProbe: probe HOST ADDR:PORT [SEND [half]] connects, sends something (Go escapes are understood, "-" is
// nothing), closes its own direction with "half", and prints what came back and how and when the connection ended:
// refused, reset, closed or silent (nothing for 25 s).
func cmdProbe(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2 && len(args) <= 4, "probe HOST ADDR:PORT [SEND [half]]")
	h := of(ts).host(ts, args[0])
	start := time.Now()
	conn, err := h.dial(args[1], 25*time.Second)
	if err != nil {
		say(ts, "%s after %v", ending(err), time.Since(start).Round(time.Millisecond))
		return
	}
	defer conn.Close()
	var writeErr error
	if len(args) > 2 && args[2] != "-" {
		text, err := strconv.Unquote(`"` + args[2] + `"`)
		ts.Check(err)
		_, writeErr = io.WriteString(conn, text)
	}
	if len(args) == 4 {
		usage(ts, args[3] == "half", "probe HOST ADDR:PORT [SEND [half]]")
		_ = conn.(*net.TCPConn).CloseWrite() // what is wrong shows in the read
	}
	_ = conn.SetReadDeadline(time.Now().Add(25 * time.Second))
	got, err := io.ReadAll(conn)
	if writeErr != nil {
		err = writeErr // the kernel tells of a reset once, to the first who asks
	}
	ts.Stdout().Write(got)
	say(ts, "%s after %v", ending(err), time.Since(start).Round(time.Millisecond))
}

// ending is a word for how a connection ended.
func ending(err error) string {
	switch {
	case err == nil:
		return "closed"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silent"
	}
	return err.Error()
}

// cmdScan: scan HOST FIRST-LAST ADDR... tries every port of every address and prints those that accept.
func cmdScan(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 3, "scan HOST FIRST-LAST ADDR...")
	h := of(ts).host(ts, args[0])
	var first, last int
	_, err := fmt.Sscanf(args[1], "%d-%d", &first, &last)
	ts.Check(err)
	var mu sync.Mutex
	var open []string
	var wait sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, addr := range args[2:] {
		for port := first; port <= last; port++ {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				target := net.JoinHostPort(addr, fmt.Sprint(port))
				conn, err := h.dial(target, 5*time.Second)
				if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					open = append(open, target+" "+err.Error())
					return
				}
				conn.Close()
				open = append(open, target)
			})
		}
	}
	wait.Wait()
	slices.Sort(open)
	say(ts, "open: %s", strings.Join(open, ", "))
}

// cmdDatagram: [!] datagram HOST ADDR:PORT HEX sends one UDP datagram and prints the answer in hexadecimal. With "!" there must be none
// within a second.
func cmdDatagram(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 3, "[!] datagram HOST ADDR:PORT HEX")
	h := of(ts).host(ts, args[0])
	payload, err := hex.DecodeString(args[2])
	ts.Check(err)
	var conn net.Conn
	ts.Check(h.enter(func() (err error) {
		conn, err = net.Dial("udp", args[1])
		return err
	}))
	defer conn.Close()
	_, err = conn.Write(payload)
	ts.Check(err)
	wait := 10 * time.Second
	if neg {
		wait = time.Second
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	answer := make([]byte, 65535)
	n, err := conn.Read(answer)
	switch {
	case neg && err == nil:
		ts.Fatalf("answered %x", answer[:n])
	case neg && errors.Is(err, os.ErrDeadlineExceeded):
		return
	}
	ts.Check(err)
	say(ts, "%x", answer[:n])
}

// cmdMetrics: metrics HOST URL prints the metrics found there and complains about those of ours that the
// Prometheus project's linter does not like.
func cmdMetrics(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "metrics HOST URL")
	out, errOut, err := of(ts).run(ts, args[0], []string{"curl", "-sS", "--fail", args[1]})
	if err != nil {
		ts.Fatalf("%v: %s", err, errOut)
	}
	ts.Stdout().Write(out)
	problems, err := promlint.New(bytes.NewReader(out)).Lint()
	ts.Check(err)
	for _, p := range problems {
		// CoreDNS's own and the runtime's names are not ours to choose.
		if strings.HasPrefix(p.Metric, "postern_") || strings.HasPrefix(p.Metric, "coredns_privatelink_") {
			ts.Fatalf("%s: %s", p.Metric, p.Text)
		}
	}
}
