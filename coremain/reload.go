package coremain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/node/confine"
)

const serverType = "dns"

// loader reads the Corefile, for the start and for every reload, and refuses the bad ones. It is also
// what Caddy gives to the reload plugin.
type loader struct {
	path  string
	stdin []byte // the Corefile itself where it came by stdin, which can be read only once
	// sandbox is what the process is kept to, set before the first start.
	sandbox confine.Sandbox

	// mu is held over a reload by signal, and taken by each look of the reload plugin: one that
	// comes meanwhile waits, and then finds that its configuration was replaced and ends.
	mu       sync.Mutex
	retired  bool              // another process has taken the place of this one, and nothing is loaded any more
	reported [sha256.Size]byte // the bad file that was reported last, so that polling says it once
}

// newLoader returns the loader of a path: "" is Corefile in the working directory, "stdin" is stdin.
func newLoader(path string) (*loader, error) {
	l := &loader{path: path}
	switch path {
	case "":
		l.path = caddy.DefaultConfigFile
	case "stdin":
		body, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("stdin: %w", err)
		}
		l.stdin = body
	}
	return l, nil
}

// errRetired is for the reload plugin, which drops it.
var errRetired = errors.New("another process has taken the place of this one")

// asStdin returns what a process with the same arguments has to read: the Corefile where it came by stdin, else nil.
func (l *loader) asStdin() (*os.File, error) {
	if l.stdin == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = w.Write(l.stdin) // ends with the other process, too
		w.Close()
	}()
	return r, nil
}

// read returns the Corefile if it can be served, as far as that can be said before setup.
func (l *loader) read() (caddy.CaddyfileInput, *corefile, error) {
	body := l.stdin
	if body == nil {
		var err error
		if body, err = os.ReadFile(filepath.Clean(l.path)); err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			p := &problem{File: l.path, Text: "can't be read: " + err.Error()}
			return caddy.CaddyfileInput{}, &corefile{path: l.path}, p
		}
	}
	in := caddy.CaddyfileInput{Contents: body, Filepath: l.path, ServerTypeName: serverType}
	c, err := parseCorefile(l.path, body, directives)
	if err == nil {
		if p := l.outOfReach(c); p != nil {
			err = p
		}
	}
	return in, c, err
}

// Load implements [caddy.Loader] for the reload plugin, which drops the error without a word.
func (l *loader) Load(string) (caddy.Input, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired {
		return nil, errRetired
	}
	in, _, err := l.read()
	if err != nil {
		if sum := sha256.Sum256([]byte(err.Error() + string(in.Contents))); sum != l.reported {
			l.reported = sum
			refused(l.because(err))
		}
		return nil, err
	}
	l.reported = [sha256.Size]byte{}
	return in, nil
}

// reload is the reload by signal: it reads the Corefile and replaces the running instance by it.
func (l *loader) reload(current *caddy.Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired {
		clog.Error("SIGUSR1: another process has taken the place of this one; ask that")
		return
	}
	in, c, err := l.read()
	if err != nil {
		l.reported = sha256.Sum256([]byte(err.Error() + string(in.Contents)))
		refused(l.because(err))
		return
	}
	if bytes.Equal(in.Contents, current.Caddyfile().Body()) {
		clog.Info("Corefile has not changed; loading it again for the files that it names")
	}
	if _, err := current.Restart(in); err != nil {
		refused(l.because(explain(err, c)))
		return
	}
	warn(c)
}

// refused reports a Corefile that wasn't taken and counts it.
func refused(err error) {
	clog.Errorf("reload refused, the configuration in force goes on: %v", err)
	reloadFailures().Inc()
}

// reloadFailures returns CoreDNS's own counter of failed reloads, coredns_reload_failed_total, so that
// there is one number however a reload was asked for and whoever refused it. The plugin doesn't
// export it; registering its twin returns it.
var reloadFailures = sync.OnceValue(func() prometheus.Counter {
	twin := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "coredns",
		Subsystem: "reload",
		Name:      "failed_total",
		Help:      "Counter of the number of failed reload attempts.",
	})
	var there prometheus.AlreadyRegisteredError
	if errors.As(prometheus.Register(twin), &there) {
		if c, ok := there.ExistingCollector.(prometheus.Counter); ok {
			return c
		}
	}
	return twin
})
