//! A stream that is asked only when it has something to say.
//!
//! The task of a watch wakes for every event, and asking the HTTP/2 layer each time whether the client has sent
//! a request costs as much as sending the event. So the requests have a waker of their own, which remembers that it was
//! woken.

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Wakes the task, and knows that it did.
struct News {
    has_come: AtomicBool,
    task: AtomicWaker,
}

impl Wake for News {
    fn wake(self: Arc<News>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<News>) {
        self.has_come.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

/// See the module.
pub struct Quiet<S> {
    stream: S,
    news: Arc<News>,
    waker: Waker,
}

impl<S> Quiet<S> {
    /// Wraps a stream, which is asked once in any case.
    pub fn new(stream: S) -> Quiet<S> {
        let news = Arc::new(News { has_come: AtomicBool::new(true), task: AtomicWaker::new() });
        Quiet { stream, waker: Arc::clone(&news).into(), news }
    }
}

impl<S: Stream + Unpin> Stream for Quiet<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = &mut *self;
        // Before looking, so that news that come in between wake the task.
        this.news.task.register(context.waker());
        if !this.news.has_come.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.stream).poll_next(&mut Context::from_waker(&this.waker));
        if polled.is_ready() {
            this.news.has_come.store(true, Ordering::SeqCst); // there may be more
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::ready;
    use tokio::sync::mpsc;

    /// Counts how often it is asked.
    struct Asked(mpsc::Receiver<u8>, Arc<AtomicUsize>);

    impl Stream for Asked {
        type Item = u8;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u8>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Poll::Ready(ready!(self.0.poll_recv(context)))
        }
    }

    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Task>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn nothing_is_missed_and_nothing_is_asked_without_news() {
        let (sender, receiver) = mpsc::channel(2);
        let (asked, task) = (Arc::new(AtomicUsize::new(0)), Arc::new(Task(AtomicUsize::new(0))));
        let waker = Waker::from(Arc::clone(&task));
        let mut quiet = Quiet::new(Asked(receiver, Arc::clone(&asked)));
        let mut poll = || Pin::new(&mut quiet).poll_next(&mut Context::from_waker(&waker));
        for _ in 0..3 {
            assert_eq!(poll(), Poll::Pending);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(), Poll::Ready(Some(1)));
        assert_eq!(poll(), Poll::Ready(Some(2)));
        assert_eq!((poll(), poll()), (Poll::Pending, Poll::Pending));
        assert_eq!(asked.load(Ordering::SeqCst), 4);
        drop(sender);
        assert_eq!(task.0.load(Ordering::SeqCst), 2);
        assert_eq!(poll(), Poll::Ready(None));
    }
}
