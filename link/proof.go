package link

import "strings"

// ProofLabel is the first label of the names at which a tenant proves in public DNS that a domain is its own.
// Nothing of a tenant's answers below it: who may write a private zone could prove any domain there.
const ProofLabel = "_postern"

// IsProof reports whether a name in canonical form, or one relative to a zone, begins with [ProofLabel].
func IsProof[T ~string | ~[]byte](name T) bool {
	first, _, _ := strings.Cut(string(name[:min(len(name), len(ProofLabel)+1)]), ".")
	return first == ProofLabel
}
