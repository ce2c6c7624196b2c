package coremain

// Modules that parts of the tree need, held here so that go.mod keeps them.
import (
	_ "github.com/armon/go-proxyproto"
	_ "github.com/gaissmai/bart"
	_ "github.com/hashicorp/go-immutable-radix/v2"
	_ "github.com/pires/go-proxyproto/tlvparse"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "go.etcd.io/bbolt"
	_ "go.uber.org/goleak"
	_ "golang.org/x/net/nettest"
	_ "golang.org/x/sys/unix"
)
