// Package wholefile writes files whole: who opens one reads all of the old text or all of the new one, also after
// the machine has lost its power. What was begun beside a file and not finished has its name with a dot before it and an ending.
package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Create makes the file at path. One that is there is left alone: the error is fs.ErrExist.
func Create(path string, mode fs.FileMode, write func(*os.File) error) error {
	return put(path, mode, write, os.Link) // a link, unlike a rename, doesn't replace what is there
}

// Replace makes the file at path, or takes the place of the one there. A symbolic link is replaced, not what it points to.
func Replace(path string, mode fs.FileMode, write func(*os.File) error) error {
	return put(path, mode, write, os.Rename)
}

// Text writes a text: what Create and Replace are given where there is no more to it.
func Text(text []byte) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.Write(text)
		return err
	}
}

func put(path string, mode fs.FileMode, write func(*os.File) error, name func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing, once renamed
	err = write(f)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := name(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(path)
}

// SyncDir makes a change of names in the directory of path last.
func SyncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
