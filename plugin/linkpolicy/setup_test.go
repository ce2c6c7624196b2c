package linkpolicy_test

import (
	"testing"

	"github.com/postern-link/postern/plugin/internal/corefiletest"
)

func TestCorefiles(t *testing.T) { corefiletest.Run(t) }
