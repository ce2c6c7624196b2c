// Command provider is a small HTTPS service behind Postern: what a provider does to learn who is
// calling. It shows the four things that matter:
//
//   - the PROXY v2 header is taken from Postern's addresses alone, and there it must be present:
//     whoever else may write one says whatever it likes about itself;
//   - the link ID, in Azure's TLV, names the connection that was approved;
//   - the source address in the header is the client's, the socket's is Postern's;
//   - names inside of TLS are invisible to a proxy of TCP, so the server compares Host with the name
//     that was judged (421 Misdirected Request, RFC 9110 section 15.5.20).
//
// It answers every request with what it knows, one fact a line.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8444", "address and port to listen on")
	cert := flag.String("cert", "cert.pem", "certificate file")
	key := flag.String("key", "key.pem", "key file")
	trust := flag.String("trust", "127.0.0.0/8", "prefix of the addresses that Postern connects from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *cert, *key, *trust); err != nil {
		log.Fatal("provider: ", err)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, listen, cert, key, trust string) error {
	prefix, err := netip.ParsePrefix(trust)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := newServer(pair)
	go func() {
		<-ctx.Done()
		srv.Close()
	}()
	if err := srv.ServeTLS(behind(ln, prefix), "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// behind returns a listener that demands a PROXY header from the peers of a prefix and turns all
// others away. A connection that ends without a byte, as Postern's health probes do, is no error.
func behind(ln net.Listener, postern netip.Prefix) net.Listener {
	return &proxyproto.Listener{
		Listener:          ln,
		ReadHeaderTimeout: 5 * time.Second,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			peer, err := netip.ParseAddrPort(o.Upstream.String())
			if err != nil || !postern.Contains(peer.Addr().Unmap()) {
				return proxyproto.REJECT, proxyproto.ErrInvalidUpstream
			}
			return proxyproto.REQUIRE, nil
		},
	}
}

// caller is what the PROXY header says of a connection.
type caller struct {
	linkID uint32
	known  bool // the header has a link ID
	source net.Addr
}

type callerKey struct{}

// newServer returns the HTTPS server. The PROXY header is outside of TLS, so it is read before the
// handshake and handed to each request of the connection through its context.
func newServer(pair tls.Certificate) *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(answer),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 5 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, callerOf(c))
		},
		ErrorLog: log.New(quietProbes{}, "", 0),
	}
}

// callerOf reads the PROXY header of a connection.
func callerOf(c net.Conn) caller {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	p, ok := c.(*proxyproto.Conn)
	if !ok || p.ProxyHeader() == nil {
		return caller{source: c.RemoteAddr()}
	}
	who := caller{source: p.ProxyHeader().SourceAddr}
	if tlvs, err := p.ProxyHeader().TLVs(); err == nil {
		who.linkID, who.known = tlvparse.FindAzurePrivateEndpointLinkID(tlvs)
	}
	return who
}

// answer says what is known of the request, and refuses one whose Host isn't the name in the hello.
func answer(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if !strings.EqualFold(host, r.TLS.ServerName) {
		http.Error(w, fmt.Sprintf("host %q is not the name of the connection, %q", host, r.TLS.ServerName), http.StatusMisdirectedRequest)
		return
	}
	who, _ := r.Context().Value(callerKey{}).(caller)
	if !who.known {
		http.Error(w, "no link ID: this connection didn't come through a private endpoint", http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "link ID  %08x\nsource   %s\nSNI      %s\n", who.linkID, who.source, r.TLS.ServerName)
}

// quietProbes is a log without the lines that a health probe, a connection with nothing in it, makes.
type quietProbes struct{}

func (quietProbes) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "TLS handshake error") && strings.HasSuffix(strings.TrimSpace(string(line)), "EOF") {
		return len(line), nil
	}
	return os.Stderr.Write(line)
}
