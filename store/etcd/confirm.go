package etcd

import (
	"context"
	"time"
)

// confirm reads meta again and again until the store is closed: see the package comment.
func (s *Store) confirm() {
	wait := confirmEvery
	for {
		pause(s.life, wait)
		if s.life.Err() != nil {
			return
		}
		wait = confirmEvery
		if err := s.confirmOnce(); err != nil && s.life.Err() == nil {
			s.doubt(err)
			wait = retryEvery
		}
	}
}

func (s *Store) confirmOnce() error {
	start, before := time.Now(), s.current.Load()
	ask, cancel := context.WithTimeout(s.life, 3*readTimeout)
	defer cancel()
	m, mod, err := s.readMeta(ask)
	if err != nil {
		return err
	}
	if err := s.judge(before, m, mod); err != nil {
		return err
	}
	s.refresh(m, mod)
	wait, cancelWait := context.WithTimeout(s.life, (restarts+2)*patience) // time to make the watch anew, and to load
	defer cancelWait()
	if err := s.await(wait, m.Revision); err != nil {
		return err
	}
	s.confirmAt(start)
	return nil
}

// confirmAt notes that the view is at least as new as the state was at start.
func (s *Store) confirmAt(start time.Time) {
	s.mu.Lock()
	if last := s.confirmed.Load(); last == nil || start.After(*last) {
		s.confirmed.Store(&start)
	}
	s.mu.Unlock()
	if was := s.trouble.Swap(nil); was != nil {
		s.log.Info("the view of the state is confirmed again", "revision", s.current.Load().meta.Revision)
	}
}

// doubt notes why the view can't be confirmed, and tells when that begins or another reason comes.
func (s *Store) doubt(err error) {
	if was := s.trouble.Swap(&err); was == nil || (*was).Error() != err.Error() {
		s.log.Error("the view of the state can't be confirmed", "error", err, "age", time.Since(s.Confirmed()).Round(time.Millisecond))
	}
}
