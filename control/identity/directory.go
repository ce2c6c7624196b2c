package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/control"
)

// How the file is read.
const (
	fileBytes = 16 << 20
	// pollEvery is how often Run looks whether a file has changed.
	pollEvery = time.Second
	// settled is the age from which a file's times tell of every write: two within one tick of a file
	// system's clock have the same.
	settled = 3 * time.Second
)

// Directory is the identities file in force. Its methods are safe for concurrent use. It is the
// control.Tenants of package control.
type Directory struct {
	path    string
	log     *slog.Logger
	refused refusalLog
	now     func() time.Time
	dial    func(context.Context, string, string) (net.Conn, error)
	key     keyFile
	metrics *metrics

	world  atomic.Pointer[world]
	reload sync.Mutex // one reads the file at a time

	life context.Context // until Close: fetches of issuers' keys
	stop context.CancelFunc
	mu   sync.Mutex // held while work begins, so that none begins after Close
	work sync.WaitGroup
}

var _ control.Tenants = (*Directory)(nil)

// Open reads an identities file. It connects to nobody: an issuer that is away is missed when its first
// token comes. The error names the line and the field.
func Open(path string, o Options) (*Directory, error) {
	d := &Directory{path: path, log: o.Log, now: o.Clock, dial: o.Dial, key: keyFile{path: o.KeyFile}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.dial == nil {
		d.dial = (&net.Dialer{Timeout: fetchTime}).DialContext
	}
	if d.key.path == "" {
		d.key.path = path + ".key"
	}
	w, err := d.read()
	if err != nil {
		return nil, err
	}
	d.world.Store(w)
	if d.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, err
	}
	d.life, d.stop = context.WithCancel(context.Background())
	return d, nil
}

// Close ends what fetches the keys of issuers, and waits for it. Sign-ins that need no issuer still work.
func (d *Directory) Close() error {
	d.mu.Lock()
	d.stop()
	d.mu.Unlock()
	d.work.Wait()
	return nil
}

// Run reloads the file when it or a file that it names has changed, until the context ends. A file that
// can't be read or is wrong leaves the one before in force: it is logged and counted once, and tried
// again each time.
func (d *Directory) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	complaint := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !d.changed() {
			complaint = ""
			continue
		}
		switch changed, err := d.load(); {
		case err == nil:
			complaint = ""
			d.report(changed, nil)
		case err.Error() != complaint:
			complaint = err.Error()
			d.report(false, err)
		}
	}
}

// Reload reads the file now. If that fails, what was in force stays, and the error says why.
func (d *Directory) Reload() error {
	changed, err := d.load()
	d.report(changed, err)
	return err
}

// report tells the log and the metrics what a reload came to.
func (d *Directory) report(changed bool, err error) {
	switch {
	case err != nil:
		d.metrics.reload("failed", 1)
		d.log.Error("identities not reloaded, the earlier ones stay in force", "file", d.path, "err", err)
	case changed:
		w := d.world.Load()
		d.metrics.reload("loaded", 1)
		d.log.Info("identities reloaded", "file", d.path, "tenants", len(w.tenants), "identities", len(w.identities))
	}
}

// load puts what the file says in force and reports whether it differs from what was.
func (d *Directory) load() (changed bool, err error) {
	d.reload.Lock()
	defer d.reload.Unlock()
	w, err := d.read()
	if err != nil {
		return false, err
	}
	return d.world.Swap(w).sum != w.sum, nil
}

// changed reports whether a file of the world in force is another one now, or might be.
func (d *Directory) changed() bool {
	for _, f := range d.world.Load().files {
		info, err := os.Stat(f.path)
		if err != nil || !same(info, f.info) || f.at.Sub(info.ModTime()) < settled {
			return true
		}
	}
	return false
}

// read reads the file and those that it names.
func (d *Directory) read() (*world, error) {
	var files []seen
	sum := sha256.New()
	open := func(path string) ([]byte, error) {
		info, err := os.Stat(path) // before the text: a write in between is seen as a change
		if err != nil {
			return nil, err
		}
		text, err := readBounded(path, fileBytes)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
		files = append(files, seen{path: path, info: info, at: time.Now()})
		return text, err
	}
	text, err := open(d.path)
	if err != nil {
		return nil, err
	}
	r := reader{dir: filepath.Dir(d.path), file: open, source: d.issuer}
	w, err := r.read(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	w.files, w.sum = files, digest(sum.Sum(nil))
	return w, nil
}

// issuer returns the keys of an issuer: those that are there if its CA file is the same.
func (d *Directory) issuer(url string, ca []byte) (*issuer, error) {
	var sum digest
	if ca != nil {
		sum = sha256.Sum256(ca)
	}
	if w := d.world.Load(); w != nil && w.issuers[url] != nil && w.issuers[url].ca == sum {
		return w.issuers[url].issuer, nil
	}
	client, err := newClient(ca, d.dial)
	if err != nil {
		return nil, err
	}
	return &issuer{url: url, ca: sum, client: client, now: d.now, log: d.log, spawn: d.spawn}, nil
}

// spawn runs f unless the directory is closed. Close waits for it.
func (d *Directory) spawn(f func(context.Context)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() != nil {
		return false
	}
	d.work.Go(func() { f(d.life) })
	return true
}

// Tenants returns all tenants, in the order of the file.
func (d *Directory) Tenants() []control.Tenant { return d.world.Load().tenants }

// Tenant returns the tenant with a name as the state has it: "" is the operator's.
func (d *Directory) Tenant(name string) (control.Tenant, bool) { return d.world.Load().tenant(name) }

// SubscriptionOwner returns the tenant that a subscription, in lower case, belongs to.
func (d *Directory) SubscriptionOwner(subscription string) (control.Tenant, bool) {
	w := d.world.Load()
	i, ok := w.owners[subscription]
	if !ok {
		return control.Tenant{}, false
	}
	return w.tenants[i], true
}

// ClientCAs returns the certificate authorities of the file, for tls.Config.ClientCAs; nil: there are
// none. It changes with the file, so it is asked for in tls.Config.GetConfigForClient.
func (d *Directory) ClientCAs() *x509.CertPool { return d.world.Load().pool }
