package linkapi

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
)

// authorities are those of client_ca. The file is looked at as the certificate is; one that can't be read
// leaves those before in force. The nil authorities are none.
type authorities struct {
	path string
	log  *slog.Logger

	reload    sync.Mutex
	seen      fs.FileInfo // guarded by reload
	complaint string      // guarded by reload: what was logged last
	certs     atomic.Pointer[[]*x509.Certificate]
}

// openAuthorities reads the file.
func openAuthorities(path string, log *slog.Logger) (*authorities, error) {
	a := &authorities{path: path, log: log}
	return a, a.load()
}

func (a *authorities) load() error {
	seen, err := os.Stat(a.path) // before it is read: a change in between is found by the next look
	if err != nil {
		return err
	}
	text, err := os.ReadFile(a.path)
	if err != nil {
		return err
	}
	certs := parseCertificates(text)
	if len(certs) == 0 {
		return fmt.Errorf("%s: no certificate in it", a.path)
	}
	a.seen = seen
	a.certs.Store(&certs)
	return nil
}

// look reads the file again if it has changed.
func (a *authorities) look() {
	if a == nil {
		return
	}
	a.reload.Lock()
	defer a.reload.Unlock()
	info, err := os.Stat(a.path)
	if err == nil && os.SameFile(info, a.seen) && info.ModTime().Equal(a.seen.ModTime()) && info.Size() == a.seen.Size() {
		return
	}
	if err = a.load(); err == nil {
		a.complaint = ""
		a.log.Info("authorities of client certificates reloaded", "file", a.path, "certificates", len(*a.certs.Load()))
		return
	}
	if err.Error() != a.complaint {
		a.complaint = err.Error()
		a.log.Error("authorities of client certificates not reloaded, the earlier ones stay in force", "err", err)
	}
}

// with returns a pool and the authorities, nil where both are empty. The pool is not changed.
func (a *authorities) with(pool *x509.CertPool) *x509.CertPool {
	if a == nil {
		return pool
	}
	if pool == nil {
		pool = x509.NewCertPool()
	} else {
		pool = pool.Clone()
	}
	for _, c := range *a.certs.Load() {
		pool.AddCert(c)
	}
	return pool
}
