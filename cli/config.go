package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// connection says how to reach the API and what of it is meant. Flags stand before the environment, the
// environment before the configuration file.
type connection struct {
	URL          string `yaml:"url"`
	Token        string `yaml:"token"`
	TokenFile    string `yaml:"tokenFile"`
	CA           string `yaml:"ca"`   // file with the certificates to trust instead of the system's
	Cert         string `yaml:"cert"` // file with a client certificate, and
	Key          string `yaml:"key"`  // its key
	Subscription string `yaml:"subscription"`
	Group        string `yaml:"group"`

	config, context string // the configuration file and which of its contexts
}

// field is one setting of a connection.
type field struct {
	flag, env, about string
	at               func(*connection) *string
}

// fields has no flag for the token: others on the machine can read the words of a command.
var fields = []field{
	{"url", "POSTERN_URL", "where the API is, such as https://postern.example:8443", func(c *connection) *string { return &c.URL }},
	{"", "POSTERN_TOKEN", "", func(c *connection) *string { return &c.Token }},
	{"token-file", "POSTERN_TOKEN_FILE", "file with the token", func(c *connection) *string { return &c.TokenFile }},
	{"ca", "POSTERN_CA", "file with the certificates to trust instead of the system's", func(c *connection) *string { return &c.CA }},
	{"cert", "POSTERN_CERT", "file with a client certificate", func(c *connection) *string { return &c.Cert }},
	{"key", "POSTERN_KEY", "file with the key of the client certificate", func(c *connection) *string { return &c.Key }},
	{"subscription", "POSTERN_SUBSCRIPTION", "the subscription that is meant", func(c *connection) *string { return &c.Subscription }},
	{"group", "POSTERN_GROUP", "the resource group that is meant", func(c *connection) *string { return &c.Group }},
}

// bind makes the flags.
func (c *connection) bind(flags *pflag.FlagSet) {
	for _, f := range fields {
		if f.flag != "" {
			flags.StringVar(f.at(c), f.flag, "", f.about+" ("+f.env+")")
		}
	}
	flags.StringVar(&c.config, "config", "", "configuration file (default $XDG_CONFIG_HOME/postern/config.yaml)")
	flags.StringVar(&c.context, "context", "", "which context of the configuration file (POSTERN_CONTEXT)")
}

// configFile is the configuration file.
type configFile struct {
	Current  string                `yaml:"current"` // the context that is used where none is named
	Contexts map[string]connection `yaml:"contexts"`
}

// maxConfig bounds files that are read whole: a configuration, a token, a manifest.
const maxConfig = 1 << 20

// complete fills what flags left out from the environment and the configuration file.
func (c connection) complete(getenv func(string) string) (connection, error) {
	given := c.Token != "" || c.TokenFile != ""
	for _, f := range fields {
		if at := f.at(&c); *at == "" && !(given && f.env == "POSTERN_TOKEN") {
			*at = getenv(f.env)
		}
	}
	if c.context == "" {
		c.context = getenv("POSTERN_CONTEXT")
	}
	file, err := c.readConfig(getenv)
	if err != nil {
		return c, err
	}
	given = c.Token != "" || c.TokenFile != ""
	for _, f := range fields {
		if at := f.at(&c); *at == "" && !(given && strings.HasPrefix(f.env, "POSTERN_TOKEN")) {
			*at = *f.at(&file)
		}
	}
	if c.URL == "" {
		return c, usagef("no API: give --url, POSTERN_URL, or a context in %s", configPath(getenv))
	}
	return c, nil
}

// readConfig returns the context that is meant; a file that isn't there is an error only where it was named.
func (c connection) readConfig(getenv func(string) string) (connection, error) {
	path := c.config
	if path == "" {
		path = configPath(getenv)
	}
	text, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) && c.config == "" && c.context == "" {
		return connection{}, nil
	}
	if err != nil {
		return connection{}, fmt.Errorf("configuration: %w", err)
	}
	var f configFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return connection{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	name := c.context
	if name == "" {
		name = f.Current
	}
	if name == "" {
		return connection{}, nil
	}
	found, ok := f.Contexts[name]
	if !ok {
		return connection{}, usagef("configuration %s has no context %q", path, name)
	}
	for _, at := range []*string{&found.TokenFile, &found.CA, &found.Cert, &found.Key} {
		if *at != "" && !filepath.IsAbs(*at) {
			*at = filepath.Join(filepath.Dir(path), *at)
		}
	}
	return found, nil
}

// configPath is where the configuration file is (XDG Base Directory Specification).
func configPath(getenv func(string) string) string {
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(getenv("HOME"), ".config")
	}
	return filepath.Join(dir, "postern", "config.yaml")
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(path, f)
}

// readBounded reads what shall be read whole.
func readBounded(name string, r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%s has more than %d bytes", name, maxConfig)
	}
	return text, err
}

// token returns the token to send, "" for none.
func (c connection) token() (string, error) {
	if c.Token != "" || c.TokenFile == "" {
		return c.Token, nil
	}
	text, err := readFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("token: %s isn't a file with one token", c.TokenFile)
	}
	return token, nil
}

// tls returns the trust and the client certificate of the connection.
func (c connection) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := readFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("certificates to trust: %s has none in PEM form", c.CA)
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, usagef("a client certificate takes --cert and --key")
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// base returns the URL of the API without a slash at its end. Without TLS it must be this machine's: a
// token would be anyone's on the way.
func (c connection) base() (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "", usagef("URL %q: https://HOST[:PORT] is expected", c.URL)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback(u.Hostname()):
	default:
		return "", usagef("URL %q: https is needed", c.URL)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() || host == "localhost"
}

// segment is a name that can stand in a path.
var segment = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,89}$`)

func checkSegment(what, s string) error {
	if !segment.MatchString(s) {
		return usagef("%s %q: letters, digits, '.', '_' and '-' are allowed, a letter or digit first", what, s)
	}
	return nil
}
