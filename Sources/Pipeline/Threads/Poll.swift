import CLinux
import Pipeline

extension cl_poll_item {
    /// The events to wait for on a descriptor; with neither flag, only its end.
    package init(_ descriptor: Int32, reads: Bool = false, writes: Bool = false) {
        let wants = (reads ? CL_READABLE : 0) | (writes ? CL_WRITABLE : 0)
        self.init(fd: descriptor, wants: UInt8(truncatingIfNeeded: wants), got: 0)
    }
    package static func readable(_ descriptor: Int32) -> cl_poll_item { cl_poll_item(descriptor, reads: true) }
    package static func writable(_ descriptor: Int32) -> cl_poll_item { cl_poll_item(descriptor, writes: true) }
}

package enum Poll {
    /// Waits until one of these is ready, or until the deadline; nil: none.
    /// - Returns: how many have something, or a negated errno.
    package static func wait(_ items: inout [cl_poll_item], until: Instant?) -> Int32 {
        var timeout: Int64 = -1
        if let until { timeout = Int64(clamping: until.since(Instant(nanoseconds: cl_now())).nanoseconds) }
        return cl_poll(&items, Int32(clamping: items.count), timeout)
    }

    /// Does not wait.
    package static func isWritable(_ descriptor: Int32) -> Bool {
        var item = cl_poll_item.writable(descriptor)
        return cl_poll(&item, 1, 0) > 0
    }
}
