package budget

import (
	"io"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// Find returns what the process may use now. It doesn't fail: what can't be read isn't known.
func Find() Memory { return find(readFile) }

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText))
	return string(b), err
}

// What the runtime keeps its own memory below where it can, in percent of a control group's limit: softMost less what
// others have of the limit, such as the kernel for our sockets, and never under softLeast, where it would do nothing but
// collect garbage.
const (
	softMost  = 80
	softLeast = 35
)

// Soften has the runtime collect garbage more eagerly when it comes near what a control group's limit leaves it, while so
// many bytes of it are used in all; 0: not known. Where GOMEMLIMIT is set, that stays. It returns the limit in force, 0
// for none.
func (m Memory) Soften(used int64) int64 {
	now := debug.SetMemoryLimit(-1)
	if m.Bounded() && os.Getenv("GOMEMLIMIT") == "" {
		next := max(m.Limit/100*softMost-max(used-own(), 0), m.Limit/100*softLeast)
		if step := m.Limit / 32; next < now-step || next > now+step || now == math.MaxInt64 {
			debug.SetMemoryLimit(next)
			now = next
		}
	}
	if now == math.MaxInt64 {
		return 0
	}
	return now
}

// own returns how many bytes the runtime has from the system.
func own() int64 {
	of := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(of)
	return int64(of[0].Value.Uint64() - of[1].Value.Uint64())
}
