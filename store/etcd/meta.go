package etcd

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// metaFormat is the version of the keyspace that this program writes, and the only one that it uses. It has
// to be raised with any change of meta or of the keys: a node of an older version would write meta
// back without what it doesn't know.
const metaFormat = 1

// meta is the value of the key of that name, written with every commit.
type meta struct {
	Format   int         `json:"format"`
	State    string      `json:"state"` // 128 random bits, made with the state: tells two apart
	Revision uint64      `json:"revision"`
	Objects  store.Set   `json:"objects"`
	Audit    store.Chain `json:"audit"`           // after the line of Revision
	Entry    string      `json:"entry,omitempty"` // the ID of the commit of Revision
	Writer   string      `json:"writer"`          // the node that wrote it
	// Stage names the parts of a commit that are not all in object/ yet; nil: none.
	Stage *stage `json:"stage,omitempty"`
}

// stage is the records of a commit under stage/.
type stage struct {
	Entry string `json:"entry"`
	Parts int    `json:"parts"`
}

// view is one state of the cluster as this node knows it. It is immutable.
type view struct {
	meta     meta
	mod      int64 // etcd's revision of meta: the condition of the next commit
	snapshot *link.Snapshot
}

func decodeMeta(value []byte) (meta, error) {
	var m meta
	if err := store.Unseal(value, &m); err != nil {
		return m, fmt.Errorf("meta: %w", err)
	}
	if m.Format != metaFormat {
		return m, fmt.Errorf("%w: format %d, this program knows %d", store.ErrForeign, m.Format, metaFormat)
	}
	if again, err := store.Seal(m); err != nil || !bytes.Equal(again, value) {
		return m, fmt.Errorf("%w: meta has fields that this program doesn't know: upgrade this program", store.ErrForeign)
	}
	return m, nil
}

// The keys. Those of meta and object/ are neighbours, so that one watch has both and nothing else.
const (
	dirAudit  = "audit/"
	keyMeta   = "meta"
	dirObject = "object/"
	dirStage  = "stage/"
)

func (s *Store) key(rel string) string { return s.opts.Prefix + rel }

func auditKey(revision uint64) string { return fmt.Sprintf("%s%016x", dirAudit, revision) }

func stageDir(revision uint64, entry string) string {
	return fmt.Sprintf("%s%016x/%s/", dirStage, revision, entry)
}

// readMeta returns meta as a quorum has it, and etcd's revision of it. It asks at most for [Options.Timeout].
func (s *Store) readMeta(ctx context.Context) (meta, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	resp, err := s.get(ctx, readTimeout, keyMeta)
	if err != nil {
		return meta{}, 0, fmt.Errorf("read meta: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return meta{}, 0, fmt.Errorf("%w: meta is gone", store.ErrDamaged)
	}
	m, err := decodeMeta(resp.Kvs[0].Value)
	return m, resp.Kvs[0].ModRevision, err
}

// judge returns an error unless m, of etcd's revision mod, can come after a view that was had before m was asked for.
func (s *Store) judge(before *view, m meta, mod int64) error {
	switch old := before.meta; {
	case m.State != old.State:
		return fmt.Errorf("%w: another state has taken its place", store.ErrDamaged)
	case m.Revision < old.Revision:
		return fmt.Errorf("%w: it went back from revision %d to %d, as when an older copy is restored: restart every node if that was on purpose", store.ErrDamaged, old.Revision, m.Revision)
	case m.Revision == old.Revision && m.Audit != old.Audit:
		return fmt.Errorf("%w: revision %d has another history than before", store.ErrDamaged, m.Revision)
	case mod < before.mod: // a watch would wait for what has been, and a commit for a meta that is gone
		return fmt.Errorf("%w: etcd's own revisions went back from %d to %d, as when a copy takes its place: restart every node if that was on purpose", store.ErrDamaged, before.mod, mod)
	}
	return nil
}

// initialise writes the meta of an empty state unless there is one.
func (s *Store) initialise(ctx context.Context) error {
	value, err := store.Seal(meta{Format: metaFormat, State: store.NewID(), Writer: s.opts.Node})
	if err != nil {
		return err
	}
	key := s.key(keyMeta)
	resp, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, string(value))).Commit()
	if err != nil {
		return fmt.Errorf("make an empty state: %w", err)
	}
	if resp.Succeeded {
		s.log.Info("made an empty state", "prefix", s.opts.Prefix)
	}
	return nil
}

// named splits the name of a record, "kind/key".
func named(name string) (link.Kind, string) {
	kind, key, _ := strings.Cut(name, "/")
	return link.Kind(kind), key
}
