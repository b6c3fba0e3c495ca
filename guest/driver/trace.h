/* SPDX-License-Identifier: GPL-2.0 */
/* fifo_aio - tracepoints: the steps in a request's life */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM fifo_aio

#if !defined(FIFO_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define FIFO_TRACE_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(fifo_request_class,
		    TP_PROTO(const struct fifo_request *req),
		    TP_ARGS(req),
		    TP_STRUCT__entry(__field(int, minor)
				     __field(bool, write)
				     __field(bool, async)
				     __field(u64, cookie)
				     __field(size_t, size)
				     __field(size_t, done)
				     __field(int, error)
				     ),
		    TP_fast_assign(__entry->minor = req->ring->channel->minor;
				   __entry->write = req->ring->write;
				   __entry->async = !!req->iocb;
				   __entry->cookie = req->cookie;
				   __entry->size = req->size;
				   __entry->done = req->done;
				   __entry->error = req->error;
				   ),
		    TP_printk("fifo%d %s cookie=%llu %s size=%zu done=%zu error=%d",
			      __entry->minor, __entry->write ? "tx" : "rx", __entry->cookie,
			      __entry->async ? "async" : "sync", __entry->size, __entry->done,
			      __entry->error)
);

/* It was made of a system call. */
DEFINE_EVENT(fifo_request_class, fifo_submit,
	     TP_PROTO(const struct fifo_request *req),
	     TP_ARGS(req)
);

/* It waits in the driver for its turn. */
DEFINE_EVENT(fifo_request_class, fifo_queue,
	     TP_PROTO(const struct fifo_request *req),
	     TP_ARGS(req)
);

/* The hardware has its descriptors. */
DEFINE_EVENT(fifo_request_class, fifo_post,
	     TP_PROTO(const struct fifo_request *req),
	     TP_ARGS(req)
);

/* Whoever asked for it wants it no more. */
DEFINE_EVENT(fifo_request_class, fifo_cancel,
	     TP_PROTO(const struct fifo_request *req),
	     TP_ARGS(req)
);

/* Its time was up. */
DEFINE_EVENT(fifo_request_class, fifo_timeout,
	     TP_PROTO(const struct fifo_request *req),
	     TP_ARGS(req)
);

/* It has ended, and its memory is the program's again. */
DEFINE_EVENT(fifo_request_class, fifo_complete,
	     TP_PROTO(const struct fifo_request *req),
	     TP_ARGS(req)
);

/* An interrupt was handled. */
TRACE_EVENT(fifo_interrupt,
	    TP_PROTO(const struct fifo_ring *ring, unsigned int completions),
	    TP_ARGS(ring, completions),
	    TP_STRUCT__entry(__field(int, minor)
			     __field(bool, write)
			     __field(unsigned int, completions)
			     ),
	    TP_fast_assign(__entry->minor = ring->channel->minor;
			   __entry->write = ring->write;
			   __entry->completions = completions;
			   ),
	    TP_printk("fifo%d %s completions=%u", __entry->minor, __entry->write ? "tx" : "rx",
		      __entry->completions)
);

/* A ring was reset. */
TRACE_EVENT(fifo_reset,
	    TP_PROTO(const struct fifo_ring *ring, unsigned int status),
	    TP_ARGS(ring, status),
	    TP_STRUCT__entry(__field(int, minor)
			     __field(bool, write)
			     __field(unsigned int, status)
			     ),
	    TP_fast_assign(__entry->minor = ring->channel->minor;
			   __entry->write = ring->write;
			   __entry->status = status;
			   ),
	    TP_printk("fifo%d %s RING_STATUS=%#x", __entry->minor, __entry->write ? "tx" : "rx",
		      __entry->status)
);

#endif /* FIFO_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
