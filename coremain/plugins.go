package coremain

// The plugins that are compiled in. Each registers its directive; directives.go has their order, and
// a test holds the two together. Left out on purpose: what talks to clouds or clusters, what takes
// updates or transfers, and DNS over gRPC, QUIC and HTTPS.
import (
	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/any"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/chaos"
	_ "github.com/coredns/coredns/plugin/debug"
	_ "github.com/coredns/coredns/plugin/dnssec"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/local"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics" // prometheus
	_ "github.com/coredns/coredns/plugin/minimal"
	_ "github.com/coredns/coredns/plugin/multisocket"
	_ "github.com/coredns/coredns/plugin/nsid"
	_ "github.com/coredns/coredns/plugin/pprof"
	_ "github.com/coredns/coredns/plugin/proxyproto"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/shed"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/timeouts"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/view"

	_ "github.com/postern-link/postern/plugin/linkapi"
	_ "github.com/postern-link/postern/plugin/linkendpoint"
	_ "github.com/postern-link/postern/plugin/linkexit"
	_ "github.com/postern-link/postern/plugin/linknetwork"
	_ "github.com/postern-link/postern/plugin/linkpolicy"
	_ "github.com/postern-link/postern/plugin/linkproxy"
	_ "github.com/postern-link/postern/plugin/linkservice"
	_ "github.com/postern-link/postern/plugin/linkstore"
	_ "github.com/postern-link/postern/plugin/privatelink"
)
