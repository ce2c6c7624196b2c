package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/postern-link/postern/store"
)

// bbolt trusts its file: it follows page numbers and lengths as they stand, through a memory map, so
// that a damaged file ends the process with a signal or a stack overflow that nothing recovers
// from, or yields other values than were stored. An image reads the same format (version 2, see
// bbolt's internal/common) with plain reads and checks every number before it is used; bbolt gets to
// see only a file whose whole tree has been walked this way.
type image struct {
	r     io.ReaderAt
	meta  meta
	spare bool   // the other meta page is unreadable
	seen  []bool // by page number: in the tree, in the free list, or a meta page
}

// The format of a page and of what is in it. Numbers are in native byte order.
const (
	pageSize   = 4096 // ours; bbolt's default is the machine's, and a file may move between machines
	pageHead   = 16   // id u64, flags u16, count u16, overflow u32
	metaMagic  = 0xED0CDAED
	metaFormat = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	elementSize  = 16 // branch: pos u32, ksize u32, pgid u64; leaf: flags u32, pos u32, ksize u32, vsize u32
	bucketHead   = 16 // root pgid u64 (0: a page follows), sequence u64
	elementPlain = 0
	elementInner = 1 // a leaf element that is a bucket

	maxDepth = 32      // of the tree; a page has at least two children, so no real one comes near
	maxPages = 1 << 28 // 1 TiB: a bound for what a damaged number can make us allocate
)

// meta is a meta page: which tree is the state, and how far the file goes.
type meta struct {
	root, freelist, pages, txid uint64
}

var order = binary.NativeEndian

// readImage reads the meta pages of a file of the given size and decides which one is in force.
func readImage(r io.ReaderAt, size int64) (*image, error) {
	if size == 0 {
		return nil, fmt.Errorf("%w: it is empty", store.ErrDamaged)
	}
	head := make([]byte, min(size, 2*pageSize))
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read the meta pages: %w", err)
	}
	if !bytes.Contains(head, order.AppendUint32(nil, metaMagic)) {
		return nil, fmt.Errorf("%w: it has no mark of a bolt file", store.ErrForeign)
	}
	if size < 2*pageSize {
		return nil, fmt.Errorf("%w: it is cut after %d bytes", store.ErrDamaged, size)
	}
	m0, err0 := readMeta(head[:pageSize], 0)
	m1, err1 := readMeta(head[pageSize:], 1)
	im := &image{r: r}
	switch {
	case err0 != nil && err1 != nil:
		return nil, fmt.Errorf("%w: both meta pages: %w; %w", store.ErrDamaged, err0, err1)
	case err0 != nil:
		im.meta, im.spare = m1, true
	case err1 != nil:
		im.meta, im.spare = m0, true
	case m0.txid+1 == m1.txid:
		im.meta = m1
	case m1.txid+1 == m0.txid:
		im.meta = m0
	default:
		return nil, fmt.Errorf("%w: the meta pages are of commits %d and %d", store.ErrDamaged, m0.txid, m1.txid)
	}
	if im.meta.pages < 4 || im.meta.pages > maxPages {
		return nil, fmt.Errorf("%w: it claims %d pages", store.ErrDamaged, im.meta.pages)
	}
	if want := int64(im.meta.pages) * pageSize; size < want {
		return nil, fmt.Errorf("%w: it is cut after %d bytes of %d", store.ErrDamaged, size, want)
	}
	im.seen = make([]bool, im.meta.pages)
	im.seen[0], im.seen[1] = true, true
	return im, nil
}

func readMeta(p []byte, id uint64) (meta, error) {
	b := p[pageHead:]
	h := fnv.New64a()
	h.Write(b[:56])
	switch {
	case order.Uint64(p) != id || order.Uint16(p[8:]) != flagMeta:
		return meta{}, fmt.Errorf("page %d isn't marked as a meta page", id)
	case order.Uint32(b) != metaMagic:
		return meta{}, fmt.Errorf("page %d has no mark of a bolt file", id)
	case order.Uint64(b[56:]) != h.Sum64():
		return meta{}, fmt.Errorf("page %d: the checksum is wrong", id)
	case order.Uint32(b[4:]) != metaFormat:
		return meta{}, fmt.Errorf("page %d: bolt format %d is unknown", id, order.Uint32(b[4:]))
	case order.Uint32(b[8:]) != pageSize:
		return meta{}, fmt.Errorf("page %d: pages of %d bytes aren't ours", id, order.Uint32(b[8:]))
	}
	return meta{
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		pages:    order.Uint64(b[40:]),
		txid:     order.Uint64(b[48:]),
	}, nil
}

// walk calls fn for every key and value of every bucket, in order, and returns an error unless each
// page of the file is a meta page, in the tree exactly once, or free. Keys and values are not
// overwritten later.
func (im *image) walk(fn func(bucket, key, value []byte) error) error {
	err := im.tree(im.meta.root, span{}, 0, func(flags uint32, name, v []byte) error {
		if flags != elementInner || len(v) < bucketHead {
			return fmt.Errorf("%w: %q is no bucket", store.ErrDamaged, name)
		}
		each := func(flags uint32, key, value []byte) error {
			if flags != elementPlain {
				return fmt.Errorf("%w: bucket %q: an element of flags %d", store.ErrDamaged, name, flags)
			}
			return fn(name, key, value)
		}
		if root := order.Uint64(v); root != 0 {
			return im.tree(root, span{}, 0, each)
		}
		return inline(v[bucketHead:], each)
	})
	if err != nil {
		return err
	}
	return im.checkFree()
}

// page reads a page with its overflow, once in the life of an image.
func (im *image) page(id uint64) ([]byte, error) {
	if id < 2 || id >= im.meta.pages {
		return nil, fmt.Errorf("%w: page %d of %d", store.ErrDamaged, id, im.meta.pages)
	}
	p := make([]byte, pageSize)
	if _, err := im.r.ReadAt(p, int64(id)*pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	if got := order.Uint64(p); got != id {
		return nil, fmt.Errorf("%w: page %d says that it is page %d", store.ErrDamaged, id, got)
	}
	over := uint64(order.Uint32(p[12:]))
	if over >= im.meta.pages-id {
		return nil, fmt.Errorf("%w: page %d goes beyond the file", store.ErrDamaged, id)
	}
	for i := id; i <= id+over; i++ {
		if im.seen[i] {
			return nil, fmt.Errorf("%w: page %d is used twice", store.ErrDamaged, i)
		}
		im.seen[i] = true
	}
	if over == 0 {
		return p, nil
	}
	p = append(p, make([]byte, over*pageSize)...)
	if _, err := im.r.ReadAt(p[pageSize:], int64(id+1)*pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return p, nil
}

// span is where the keys of a subtree must lie: at or after from, before to; nil is no bound.
type span struct{ from, to []byte }

type elementFunc func(flags uint32, key, value []byte) error

// tree visits the leaf elements below a page. No page is read twice, so a loop ends.
func (im *image) tree(id uint64, keys span, depth int, fn elementFunc) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: page %d is too deep in the tree", store.ErrDamaged, id)
	}
	p, err := im.page(id)
	if err != nil {
		return err
	}
	count := int(order.Uint16(p[10:]))
	switch flags := order.Uint16(p[8:]); {
	case flags == flagLeaf && (count > 0 || depth == 0):
		return leaf(p, count, keys, fn)
	case flags == flagBranch && count > 0:
		return im.branch(p, id, count, keys, depth, fn)
	default:
		return fmt.Errorf("%w: page %d has type %#x and %d elements", store.ErrDamaged, id, flags, count)
	}
}

func (im *image) branch(p []byte, id uint64, count int, keys span, depth int, fn elementFunc) error {
	type child struct {
		key []byte
		id  uint64
	}
	children := make([]child, 0, min(count, len(p)/elementSize))
	for i := range count {
		at := pageHead + i*elementSize
		if at+elementSize > len(p) {
			return fmt.Errorf("%w: page %d: %d elements don't fit", store.ErrDamaged, id, count)
		}
		key, _, err := cut(p, at, order.Uint32(p[at:]), order.Uint32(p[at+4:]), 0)
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		children = append(children, child{key, order.Uint64(p[at+8:])})
	}
	from := keys.from
	for i, c := range children {
		// The first key may be less than the bound from above only if that is none.
		if from != nil && bytes.Compare(c.key, from) < 0 || i > 0 && bytes.Equal(c.key, from) {
			return fmt.Errorf("%w: page %d: keys out of order", store.ErrDamaged, id)
		}
		to := keys.to
		if i+1 < len(children) {
			to = children[i+1].key
		}
		if err := im.tree(c.id, span{c.key, to}, depth+1, fn); err != nil {
			return err
		}
		from = c.key
	}
	return nil
}

// inline visits a bucket that is small enough to stand within the value of its parent.
func inline(p []byte, fn elementFunc) error {
	if len(p) < pageHead || order.Uint64(p) != 0 || order.Uint16(p[8:]) != flagLeaf || order.Uint32(p[12:]) != 0 {
		return fmt.Errorf("%w: an inline bucket without its page", store.ErrDamaged)
	}
	return leaf(p, int(order.Uint16(p[10:])), span{}, fn)
}

func leaf(p []byte, count int, keys span, fn elementFunc) error {
	var last []byte
	for i := range count {
		at := pageHead + i*elementSize
		if at+elementSize > len(p) {
			return fmt.Errorf("%w: a leaf whose %d elements don't fit", store.ErrDamaged, count)
		}
		key, value, err := cut(p, at, order.Uint32(p[at+4:]), order.Uint32(p[at+8:]), order.Uint32(p[at+12:]))
		if err != nil {
			return err
		}
		if last != nil && bytes.Compare(key, last) <= 0 ||
			keys.from != nil && bytes.Compare(key, keys.from) < 0 ||
			keys.to != nil && bytes.Compare(key, keys.to) >= 0 {
			return fmt.Errorf("%w: key %q is out of order", store.ErrDamaged, key)
		}
		if err := fn(order.Uint32(p[at:]), key, value); err != nil {
			return err
		}
		last = key
	}
	return nil
}

// cut returns the key and value of an element: pos counts from the element.
func cut(p []byte, at int, pos, ksize, vsize uint32) (key, value []byte, err error) {
	from := uint64(at) + uint64(pos)
	mid := from + uint64(ksize)
	to := mid + uint64(vsize)
	if ksize == 0 || pos < elementSize || to > uint64(len(p)) {
		return nil, nil, fmt.Errorf("%w: an element outside of its page", store.ErrDamaged)
	}
	return p[from:mid:mid], p[mid:to:to], nil
}

// checkFree reads the free list and returns an error unless it names exactly the pages not seen.
func (im *image) checkFree() error {
	p, err := im.page(im.meta.freelist)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	if order.Uint16(p[8:]) != flagFreelist {
		return fmt.Errorf("%w: page %d is no free list", store.ErrDamaged, im.meta.freelist)
	}
	count, at := uint64(order.Uint16(p[10:])), pageHead
	if count == 0xFFFF { // too many for 16 bits: the count comes first
		count, at = order.Uint64(p[at:]), at+8
	}
	if count > uint64(len(p)-at)/8 {
		return fmt.Errorf("%w: a free list of %d pages doesn't fit", store.ErrDamaged, count)
	}
	for i := range int(count) {
		id := order.Uint64(p[at+8*i:])
		if id >= im.meta.pages || im.seen[id] {
			return fmt.Errorf("%w: page %d is free and in use, or free twice", store.ErrDamaged, id)
		}
		im.seen[id] = true
	}
	for id, seen := range im.seen {
		if !seen {
			return fmt.Errorf("%w: page %d is neither free nor in use", store.ErrDamaged, id)
		}
	}
	return nil
}
