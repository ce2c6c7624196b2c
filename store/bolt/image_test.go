package bolt

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"path/filepath"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/storetest"
)

// FuzzImage overwrites bytes of a real file and cuts it: neither makes the walk panic or go on for ever.
func FuzzImage(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	s := mustOpen(f, path)
	for n := range 40 {
		mustCommit(f, s, n, link.PutNetwork{Network: storetest.Network(n)})
	}
	mustClose(f, s)
	original := readAll(f, path)
	f.Add(uint32(0), []byte{}, uint32(0))
	f.Add(uint32(pageSize+8), []byte{1, 0, 3, 0}, uint32(1))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, less uint32) {
		file := bytes.Clone(original)
		copy(file[int(at)%len(file):], patch)
		file = file[:len(file)-int(less)%len(file)]
		// A damaged meta page ends it early: with good checksums the numbers in it are used.
		for _, page := range []int{0, pageSize} {
			if len(file) >= page+pageSize {
				sum := fnv.New64a()
				sum.Write(file[page+pageHead : page+pageHead+56])
				binary.NativeEndian.PutUint64(file[page+pageHead+56:], sum.Sum64())
			}
		}
		im, err := readImage(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		r := reader{}
		walked := im.walk(r.element)
		objects, err := r.decoder.Finish()
		if walked != nil || err != nil {
			return
		}
		_, _ = r.finish(objects) // may refuse, must return
	})
}
