package linkapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/caddy"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/armapi"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// What a client has to keep to.
const (
	headerTime = 10 * time.Second // the TLS handshake, and then the headers, all together
	bodyTime   = 10 * time.Second // headers and body
	answerTime = 2 * time.Minute  // until the answer is read
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
	maxStreams = 64 // of an HTTP/2 connection
)

// lookEvery is how often the files of certificates are looked at.
const lookEvery = time.Second

// server is the control API of one configuration: the [node.API].
type server struct {
	settings
	config func() (node.Config, error) // of the whole Corefile, once it is read
	zones  func() *link.Zones
	exits  func() []handover.Exit
	log    *slog.Logger

	snapshot func() *link.Snapshot // of the node, from Prepare on

	socket *socket // nil until Prepare, or Commit where a predecessor has it
	share  *share
	before *server // whose socket Commit takes; nil: none

	certificate *certificate
	authorities *authorities // of client_ca; nil: none
	directory   *identity.Directory
	control     *control.Control
	http        *http.Server

	life context.Context
	stop context.CancelFunc
	work sync.WaitGroup
}

func newServer(s settings, d *handover.Draft) *server {
	return &server{settings: s, config: d.Config, zones: d.Zones, exits: d.Exits, log: handover.NewLogger(name)}
}

// Settings returns what the Corefile says, for tests of it.
func (s *server) Settings() any {
	out := s.settings
	out.URL = nil
	return struct {
		URL string
		settings
	}{fmt.Sprint(s.URL), out}
}

// Prepare implements [node.API]: it reads all files and opens the address, unless its predecessor has it.
func (s *server) Prepare(n *node.Node, before node.API) (err error) {
	defer func() {
		if err != nil {
			s.Abandon()
		}
	}()
	c, err := s.config()
	if err != nil {
		return err
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return err
	}
	if err := s.openCertificate(m, c.State.Bolt); err != nil {
		return err
	}
	if s.directory, err = identity.Open(s.Identities, identity.Options{Log: s.log, Registerer: c.Registerer}); err != nil {
		return err
	}
	s.control = control.New(s.controlConfig(n, c))
	api, err := armapi.New(armapi.Config{Control: s.control, Directory: s.directory, URL: s.URL, Listen: s.Listen.String(),
		Rate: float64(s.Rate), Log: s.log, Registerer: c.Registerer})
	if err != nil {
		return err
	}
	s.http = s.newHTTP(api)
	s.snapshot = n.Snapshot
	if old, ok := before.(*server); ok && old.Listen == s.Listen {
		s.before = old // it is ours already: what endpoints have come to be there is told, and no reason to refuse
		return nil
	}
	if err := s.checkAddress(); err != nil {
		return err
	}
	if l := n.Inherited(s.Listen); l != nil {
		s.socket, s.share = listenOn(l)
		return nil
	}
	s.socket, s.share, err = listen(s.Listen.String())
	return err
}

// checkAddress refuses an address that is an endpoint's, or may become one (C10). Those that the Corefile
// declares are looked for before; here it is those that were made through the API. At the start the state
// isn't known yet: [server.tellAddress] looks later, since no tenant may keep a node from starting.
func (s *server) checkAddress() error {
	snapshot := s.snapshot()
	if snapshot == nil || s.Listen.Addr().IsUnspecified() {
		return nil
	}
	if e := snapshot.EndpointAt(s.Listen.Addr()); e != nil {
		return fmt.Errorf("%s is the address of endpoint %s; the API needs one of its own", s.Listen.Addr(), e.ID)
	}
	if network, pool := snapshot.PoolOf(s.Listen.Addr()); network != nil {
		return fmt.Errorf("%s is in the pool %s of network %s; the API needs an address of its own", s.Listen.Addr(), pool, network.ID)
	}
	return nil
}

// tellAddress logs that the address of the API is also an endpoint's, which another node may have given out.
// The data plane lets nobody in there. told is what it has said before; it returns what it has said now.
func (s *server) tellAddress(told string) string {
	err := s.checkAddress()
	if err == nil {
		return ""
	}
	if err.Error() != told {
		s.log.Error("THE ADDRESS OF THE CONTROL API IS ALSO AN ENDPOINT'S OR OF A POOL: no flow is let in at it; delete the endpoint or give the API another address", "err", err)
	}
	return err.Error()
}

// openCertificate loads the pair of the settings, or one of our own beside the state file.
func (s *server) openCertificate(m *metrics, state string) error {
	s.certificate = &certificate{cert: s.Cert, key: s.Key, log: s.log, metrics: m}
	if s.Cert == "" {
		if state == "" {
			p, err := handover.PlaceOf(handover.Store{})
			if err != nil {
				return err
			}
			state = p.Bolt
		}
		base := filepath.Join(filepath.Dir(state), "postern-api")
		s.certificate.cert, s.certificate.key, s.certificate.names = base+".crt", base+".key", s.names()
	}
	if err := s.certificate.open(); err != nil {
		return err
	}
	if s.ClientCA == "" {
		return nil
	}
	var err error
	s.authorities, err = openAuthorities(s.ClientCA, s.log)
	return err
}

// names are what a certificate of our own is for.
func (s *server) names() []string {
	all := []string{"localhost", "127.0.0.1", "::1"}
	if a := s.Listen.Addr(); !a.IsUnspecified() {
		all = append(all, a.String())
	}
	if h, err := os.Hostname(); err == nil && validHost(h) {
		all = append(all, strings.ToLower(h))
	}
	if s.URL != nil {
		all = append(all, strings.ToLower(s.URL.Hostname()))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *server) newHTTP(api http.Handler) *http.Server {
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: s.certificate.get}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.GetConfigForClient = nil
		if c.ClientCAs = s.clientCAs(); c.ClientCAs != nil {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
		return c, nil
	}
	return &http.Server{
		Handler: api, TLSConfig: base,
		ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, WriteTimeout: answerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: 16 << 10},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // handshakes of strangers
	}
}

// clientCAs returns whom client certificates may be from: the authorities of the identities and those of
// client_ca, which both change with their files. nil: nobody.
func (s *server) clientCAs() *x509.CertPool { return s.authorities.with(s.directory.ClientCAs()) }

// Commit implements [node.API].
func (s *server) Commit() {
	if s.before != nil {
		// The predecessor is closed after this: its socket is still open.
		s.socket = s.before.socket
		s.share, _ = s.socket.use()
		s.before = nil
	}
	s.life, s.stop = context.WithCancel(context.Background())
	s.work.Go(s.serve)
	s.work.Go(func() { s.directory.Run(s.life) })
	s.work.Go(func() { s.control.Run(s.life) })
	s.work.Go(s.lookAtFiles)
	s.log.Info("control API", "address", s.share.Addr().String(), "certificate", s.certificate.cert)
}

func (s *server) serve() {
	if err := s.http.ServeTLS(s.share, "", ""); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("control API has ended", "err", err)
	}
}

// lookAtFiles follows the certificate and the authorities until the life ends, and the state at the address.
func (s *server) lookAtFiles() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told := ""
	for {
		told = s.tellAddress(told)
		select {
		case <-s.life.Done():
			return
		case <-tick.C:
			s.certificate.look()
			s.authorities.look()
		}
	}
}

// Abandon implements [node.API].
func (s *server) Abandon() {
	if s.share != nil {
		_ = s.share.Close()
	}
	if s.directory != nil {
		_ = s.directory.Close()
	}
	s.share, s.directory, s.before = nil, nil, nil
}

// Close implements [node.API].
func (s *server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = s.http.Close()
	}
	_ = s.share.Close() // Shutdown does it, unless serve hadn't begun
	s.stop()
	s.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, s.directory.Close())
}

// controlConfig wires the operations to the node.
func (s *server) controlConfig(n *node.Node, c node.Config) control.Config {
	config := control.Config{
		Store: n.Store(), Snapshot: n.Snapshot, Tenants: s.directory, Limits: s.Limits, Zones: s.zones(),
		Own: ownListeners, Plane: n.Listeners,
		Local:       func() []netip.Addr { return ownAddresses(n.Snapshot()) },
		Flows:       func(yield func(control.Flow) bool) { flows(n, yield) },
		Ground:      n.Ground,
		Targets:     func(service link.ID) []control.TargetState { return targetStates(n, service) },
		TargetNames: func(service link.ID) []control.TargetName { return targetNames(n, service) },
		Published:   n.Published, Healthy: n.Healthy, HealthyAt: n.HealthyAt, View: n.Freshness, Policy: n.Policy, Expiry: s.Expire, Node: n.Name(), Version: caddy.AppVersion, Log: s.log, Registerer: c.Registerer,
	}
	for _, e := range s.exits() {
		config.Exits = append(config.Exits, e.Explain)
	}
	if c.Proxy != nil {
		config.OwnUDP = c.Proxy.OwnUDP
	}
	if s.Resolver.IsValid() {
		config.Reserved = []netip.Addr{s.Resolver.Addr().Unmap()}
		config.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Resolver.String())
		}}
	}
	return config
}

// targetStates are the targets of a service as the operations have them.
func targetStates(n *node.Node, service link.ID) (all []control.TargetState) {
	for _, one := range n.Targets(service) {
		all = append(all, control.TargetState(one))
	}
	return all
}

// targetNames are the names of a service's targets as the operations have them.
func targetNames(n *node.Node, service link.ID) (all []control.TargetName) {
	for _, one := range n.TargetNames(service) {
		all = append(all, control.TargetName(one))
	}
	return all
}

// flows yields the live flows as the operations have them.
func flows(n *node.Node, yield func(control.Flow) bool) {
	for f := range n.Flows() {
		if !yield(control.Flow{ID: f.ID, Node: n.Name(), Endpoint: f.Endpoint, Service: f.Service, LinkID: f.LinkID, Source: f.Source, Local: f.Local, Protocol: f.Protocol.String(),
			Target: f.Target, ServerName: f.ServerName, State: string(f.State), Started: f.Started, Sent: uint64(f.ToTarget), Received: uint64(f.ToClient), Standing: f.Standing}) {
			return
		}
	}
}
