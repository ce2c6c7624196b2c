package engine

import (
	"io"
	"testing"
)

// BenchmarkPair measures what a pair carries between sockets of this machine.
func BenchmarkPair(b *testing.B) {
	for name, start := range engines {
		b.Run(name+"/message of 100 bytes", func(b *testing.B) {
			p := newWorld(b, start).pair(nil)
			go io.Copy(p.target, p.target)
			buf := make([]byte, 100)
			b.ReportAllocs()
			for b.Loop() {
				p.client.Write(buf)
				if _, err := io.ReadFull(p.client, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/bulk", func(b *testing.B) {
			p := newWorld(b, start).pair(nil)
			done := make(chan error, 1)
			go func() {
				_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{p.target}, make([]byte, 256<<10))
				done <- err
			}()
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := p.client.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			p.client.CloseWrite()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
