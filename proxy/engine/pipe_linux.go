package engine

import (
	"errors"
	"sync"
)

const (
	// pipeSize is what a pipe can hold. It is more than is ever spliced at once because the kernel
	// counts slots of one page, and a segment from a network takes a whole slot.
	pipeSize = 1 << 20
	// smallPipe is what one must hold to be of use.
	smallPipe = 64 << 10
	// sparePipes are kept open between uses. 32 of them are half of what the kernel lets a user
	// without privileges have at this size (fs.pipe-user-pages-soft, 64 MiB, is 64).
	sparePipes = 32
)

// errNoSplice: go on with a buffer.
var errNoSplice = errors.New("no pipe to splice with")

// pipe is a pair of descriptors to splice through.
type pipe struct {
	r, w   int
	kernel kernel
}

func newPipe(k kernel) *pipe {
	if k == nil {
		k = linux{}
	}
	r, w, err := k.pipe()
	if err != nil {
		return nil
	}
	return &pipe{r, w, k}
}

func (p *pipe) close() {
	p.kernel.close(p.r, false)
	p.kernel.close(p.w, false)
}

// pipes lends pipes. Every pipe that it has or takes back is empty. The zero value is ready.
type pipes struct {
	kernel   kernel // nil: linux
	mu       sync.Mutex
	spare    []*pipe
	disabled bool // no more pipes: the kernel can't splice here, or the proxy is closed
}

// get returns an empty pipe, nil where there is none to be had.
func (p *pipes) get() *pipe {
	p.mu.Lock()
	if n := len(p.spare); n > 0 {
		one := p.spare[n-1]
		p.spare = p.spare[:n-1]
		p.mu.Unlock()
		return one
	}
	disabled := p.disabled
	p.mu.Unlock()
	if disabled {
		return nil
	}
	return newPipe(p.kernel)
}

// put takes an empty pipe back.
func (p *pipes) put(one *pipe) {
	p.mu.Lock()
	keep := !p.disabled && len(p.spare) < sparePipes
	if keep {
		p.spare = append(p.spare, one)
	}
	p.mu.Unlock()
	if !keep {
		one.close()
	}
}

// useless reports whether no pipe can be had.
func (p *pipes) useless() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.disabled
}

// disable closes the spare pipes, and lets out no more.
func (p *pipes) disable() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disabled = true
	for _, one := range p.spare {
		one.close()
	}
	p.spare = nil
}

func (p *pipes) close() { p.disable() }
