// Package etcdtest runs etcd in tests, in the process of the test.
package etcdtest

import (
	"net/url"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-link/postern/internal/freeport"
)

// A member's log has room reserved for it when it begins. 64 MB each, as etcd has it, fill a small disk when many tests run at once,
// and a member whose disk is full ends the process.
func init() { wal.SegmentSizeBytes = 4 << 20 }

// Config returns the configuration of a member that is a cluster of its own, with its data in a directory and on ports of 127.0.0.1 that are
// free. It doesn't wait for the disk, and says nothing but why it ends the process.
func Config(t testing.TB, name, dir string) *embed.Config {
	t.Helper()
	c := embed.NewConfig()
	c.Name, c.Dir = name, dir
	peer := url.URL{Scheme: "http", Host: freeport.Addr(t, "127.0.0.1")}
	client := url.URL{Scheme: "http", Host: freeport.Addr(t, "127.0.0.1")}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.UnsafeNoFsync = true // the disk is not what is tested
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.Lock(os.Stderr), zap.DPanicLevel)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	return c
}

// Start starts a member and waits until it answers. It ends with the test. It returns its URL.
func Start(t testing.TB, c *embed.Config) string {
	t.Helper()
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("etcd isn't ready within 30 s")
	}
	return c.ListenClientUrls[0].String()
}
