package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/postern-link/postern/internal/wholefile"
)

// keyPrefix begins the key ID of our own tokens.
const keyPrefix = "postern-"

// signingKey is the private key that tokens of clients are signed with, and their key ID.
type signingKey struct {
	private *ecdsa.PrivateKey
	kid     string
}

// keyFile is the file of the signing key. What is in memory follows it: nodes that share the file share
// the key, and deleting it ends every token that was signed with it.
type keyFile struct {
	path string

	mu   sync.Mutex
	key  *signingKey // nil: not read yet, or there is none
	info fs.FileInfo // the file that key came from
}

// current returns the key as the file has it now. make says that one is made where there is none;
// without it the error is [fs.ErrNotExist] then.
func (k *keyFile) current(make bool) (*signingKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.follow()
	if make && errors.Is(err, fs.ErrNotExist) {
		if err = k.create(); err == nil {
			err = k.follow()
		}
	}
	if err != nil {
		return nil, err
	}
	return k.key, nil
}

// follow reads the file if it isn't the one that the key came from. The caller holds the lock.
func (k *keyFile) follow() error {
	info, err := os.Stat(k.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			k.key, k.info = nil, nil
		}
		return err
	}
	if k.key != nil && same(info, k.info) {
		return nil
	}
	k.key, k.info = nil, nil
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s: others may read or write the key, its mode must be 0600", k.path)
	}
	text, err := readBounded(k.path, 64<<10)
	if err != nil {
		return err
	}
	key, err := parseKey(text)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.key, k.info = key, info
	return nil
}

// parseKey reads a key. The errors show nothing of it.
func parseKey(text []byte) (*signingKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no private key in PEM (PKCS #8)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("no private key of the curve P-256")
	}
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(public)
	return &signingKey{private: private, kid: keyPrefix + hex.EncodeToString(sum[:8])}, nil
}

// create makes the file with a new key. Where another process is first, its key is the one.
func (k *keyFile) create() error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := wholefile.Create(k.path, 0o600, wholefile.Text(text)); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return wholefile.SyncDir(k.path) // the other process may not have come so far
}
