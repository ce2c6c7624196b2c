// Package soak runs the real binary for a long time under flows of all kinds, while their targets come and go, approvals are taken
// back and Corefiles are read again, and looks whether anything is lost, left over or complained of. "make soak" runs it for half
// an hour; without a time its test is skipped. The package has no code outside its tests.
package soak
