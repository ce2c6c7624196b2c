//go:build !linux

package external

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// errPlatform: what holds a program in is of Linux.
var errPlatform = errors.New("policy programs need Linux")

// Launch does nothing here.
func Launch() {}

type executable struct{}

func openExecutable(string, [sha256.Size]byte) (*executable, error) { return nil, errPlatform }
func (*executable) close()                                          {}

type instance struct {
	policy  policypb.PolicyClient
	answers answers
}

func begin(context.Context, Config, *executable, *output) (*instance, error) { return nil, errPlatform }

func (*instance) done() <-chan struct{} { return nil }
func (*instance) why() error            { return errPlatform }
func (*instance) end()                  {}

func unprotected() string { return "" }

func sweep() {}
