import CMnl

/// Iteration over netlink(7) messages and attributes that validates every length.
package enum Netlink {
    /// Calls `body` for each complete message until it asks to stop; stops at the first incomplete one.
    package static func messages(_ bytes: UnsafeRawBufferPointer, _ body: (UnsafePointer<nlmsghdr>) -> Bool) {
        guard let base = bytes.baseAddress else { return }
        var left = Int32(clamping: bytes.count)
        var message: UnsafePointer<nlmsghdr> = base.assumingMemoryBound(to: nlmsghdr.self)
        // libmnl compares lengths as signed numbers: one of 2 GiB and more would pass.
        while mnl_nlmsg_ok(message, left), Int64(message.pointee.nlmsg_len) <= Int64(left) {
            guard body(message), let next = mnl_nlmsg_next(message, &left) else { return }
            message = UnsafePointer(next)
        }
    }

    /// The payload of a complete message.
    package static func payload(_ message: UnsafePointer<nlmsghdr>) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: mnl_nlmsg_get_payload(message), count: Int(mnl_nlmsg_get_payload_len(message)))
    }

    /// The errno of an NLMSG_ERROR; 0: an acknowledgement; nil: the message has none.
    package static func error(_ payload: UnsafeRawBufferPointer) -> Int32? {
        guard payload.count >= 4 else { return nil }
        let error = payload.loadUnaligned(as: Int32.self)
        return error <= 0 && error > -4096 ? -error : nil
    }

    /// What stands behind a family's own header of `header` bytes: type and value of each attribute that is whole.
    package static func attributes(
        _ message: UnsafePointer<nlmsghdr>, header: Int, _ body: (Int, UnsafeRawBufferPointer) -> Void
    ) {
        let payload = payload(message)
        guard payload.count >= header else { return }
        attributes(UnsafeRawBufferPointer(rebasing: payload[header...]), body)
    }

    /// The same of attributes alone, as a nested one holds them.
    package static func attributes(_ bytes: UnsafeRawBufferPointer, _ body: (Int, UnsafeRawBufferPointer) -> Void) {
        guard let base = bytes.baseAddress else { return }
        let end = base + bytes.count
        var attribute = base.assumingMemoryBound(to: nlattr.self)
        while mnl_attr_ok(attribute, Int32(clamping: end - UnsafeRawPointer(attribute))) {
            let value = UnsafeRawBufferPointer(
                start: mnl_attr_get_payload(attribute), count: Int(mnl_attr_get_payload_len(attribute)))
            body(Int(mnl_attr_get_type(attribute)), value)
            guard let next = mnl_attr_next(attribute) else { return }
            attribute = UnsafePointer(next)
        }
    }

    /// A number in network order of exactly the type's length.
    package static func number<Value: FixedWidthInteger>(_ bytes: UnsafeRawBufferPointer) -> Value? {
        bytes.count == Value.bitWidth / 8 ? Value(bigEndian: bytes.loadUnaligned(as: Value.self)) : nil
    }
}
