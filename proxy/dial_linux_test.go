package proxy

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// P08: a peer that is gone without a word is noticed on either side: by keepalive where nothing is under way, by the
// user timeout where bytes are, once the flow has lasted for a moment. And nothing waits to be sent with more.
func TestGonePeersAreNoticed(t *testing.T) {
	w, _, _ := pair(t, Settings{})
	f := w.proxy.live.all()[0]
	f.mu.Lock()
	sides := map[string]controlled{"client": f.client, "target": f.target}
	f.mu.Unlock()
	eventually(t, "the flow was looked after", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.kept
	})
	for side, c := range sides {
		for _, want := range append(keepalive[:len(keepalive):len(keepalive)], option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}) {
			got, err := -1, error(nil)
			c.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), want.level, want.name) })
			if err != nil || got != want.value {
				t.Errorf("%s: option %d of level %d is %d, %v; want %d", side, want.name, want.level, got, err, want.value)
			}
		}
	}
	if max(keepIdle+keepCount*keepInterval, userTimeout) > 5*time.Minute {
		t.Error("it takes more than five minutes")
	}
}
