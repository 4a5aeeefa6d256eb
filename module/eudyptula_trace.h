/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints of waitqueues.ko: a message enters the queue, and leaves it.
 * Only __field() is used: other macros, such as __assign_str(), take different
 * arguments in different kernel versions.
 */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM eudyptula

#if !defined(_EUDYPTULA_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _EUDYPTULA_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

TRACE_EVENT(message_queued,
	    TP_PROTO(u64 sequence, unsigned int length),
	    TP_ARGS(sequence, length),
	    TP_STRUCT__entry(__field(u64, sequence)
			     __field(unsigned int, length)
	    ),
	    TP_fast_assign(__entry->sequence = sequence;
			   __entry->length = length;
	    ),
	    TP_printk("sequence=%llu length=%u",
		      __entry->sequence, __entry->length)
);

TRACE_EVENT(message_consumed,
	    TP_PROTO(u64 sequence, unsigned int length, u64 queue_ns),
	    TP_ARGS(sequence, length, queue_ns),
	    TP_STRUCT__entry(__field(u64, sequence)
			     __field(u64, queue_ns)
			     __field(unsigned int, length)
	    ),
	    TP_fast_assign(__entry->sequence = sequence;
			   __entry->queue_ns = queue_ns;
			   __entry->length = length;
	    ),
	    TP_printk("sequence=%llu length=%u queue_ns=%llu",
		      __entry->sequence, __entry->length, __entry->queue_ns)
);

#endif /* _EUDYPTULA_TRACE_H */

/* define_trace.h includes this file again; Kbuild adds its folder with -I. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE eudyptula_trace
#include <trace/define_trace.h>
