package link

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// aliasSuffix ends every alias: what clients of Azure tell an alias from a resource ID by.
const aliasSuffix = ".postern.azure.privatelinkservice"

// NewAlias returns a new alias for a service, "NAME.HEX.postern.azure.privatelinkservice": its own last name segment and 128
// bits of random, so that an alias can be told but not guessed. The error is that of random.
func NewAlias(service ID, random io.Reader) (string, error) {
	var bits [16]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return "", fmt.Errorf("alias of service %s: %w", service, err)
	}
	name := string(service[strings.LastIndexByte(string(service), '/')+1:])
	return name + "." + hex.EncodeToString(bits[:]) + aliasSuffix, nil
}
