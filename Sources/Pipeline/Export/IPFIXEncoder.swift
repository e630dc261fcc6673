import Pipeline
import PipelineFlows

/// Makes IPFIX messages of flow records (RFC 7011 §3). Pure: bytes out, no clock, no socket.
///
/// One encoder is one transport session of one observation domain: its sequence number counts the data records of all
/// messages that it has finished, modulo 2^32. Begin a message by appending; when ``append(_:_:)`` says no, or there is
/// no more, take ``finish(exportTime:)``.
package struct IPFIXEncoder {
    package let domain: UInt32
    package let enterprise: UInt32
    /// The most octets of a message: at least ``IPFIX/shortestLimit``, at most ``IPFIX/longestMessage``.
    package let messageLimit: Int
    /// Data records in finished messages, modulo 2^32: what the next message's header says.
    package private(set) var sequence: UInt32
    /// Data records in the message that is being made.
    package private(set) var pendingRecords = 0

    private var message: [UInt8] = []
    /// Where the set that is being made begins, and what it holds; nil: none.
    private var openSet: (start: Int, id: UInt16)?

    /// - Parameter sequence: of the first message; 0 but in tests.
    package init(domain: UInt32, enterprise: UInt32, messageLimit: Int, sequence: UInt32 = 0) {
        self.domain = domain
        self.enterprise = enterprise
        self.messageLimit = min(max(messageLimit, IPFIX.shortestLimit), IPFIX.longestMessage)
        self.sequence = sequence
        reset()
    }

    /// Nothing was appended since the last message.
    package var isEmpty: Bool { message.count == IPFIX.headerLength }

    /// Appends all templates. First thing in a session, and over UDP from time to time (RFC 7011 §8.4).
    /// False, and nothing appended, if they don't fit behind what is there already.
    package mutating func appendTemplates() -> Bool {
        var body: [UInt8] = []
        for template in IPFIX.Template.allCases {
            body.put(template.rawValue)
            body.put(UInt16(clamping: template.fields.count))
            for field in template.fields { body.put(field, enterprise: enterprise) }
        }
        return append(body, toSet: IPFIX.templateSet)
    }

    /// Appends a data record. False, and nothing appended, if it doesn't fit: finish this message, then append again.
    /// An empty message takes any record.
    package mutating func append(_ record: FlowRecord, _ names: FlowNames) -> Bool {
        let template = IPFIX.Template(record.key)
        var body: [UInt8] = []
        body.reserveCapacity(128)
        for address in [record.key.source, record.key.destination] {
            if template.isIPv4 {
                body.put(address.v4Bits)
            } else {
                body.put(address.high)
                body.put(address.low)
            }
        }
        body.put(record.key.port)
        body.put(record.key.proto)
        body.put(record.bytesOut)
        body.put(record.bytesIn)
        body.put(record.connections)
        body.put(record.firstSeen / 1_000_000)
        body.put(record.lastSeen / 1_000_000)
        for element in IPFIX.NameElement.allCases { body.put(name: names[element]) }
        guard append(body, toSet: template.rawValue) else { return false }
        pendingRecords += 1
        return true
    }

    /// The message; nil if nothing was appended. The next one begins.
    /// - Parameter exportTime: seconds since 1970, modulo 2^32.
    package mutating func finish(exportTime: UInt32) -> [UInt8]? {
        guard !isEmpty else { return nil }
        closeSet()
        message.replace(at: 0, IPFIX.version)
        message.replace(at: 2, UInt16(clamping: message.count))
        message.replace(at: 4, exportTime)
        message.replace(at: 8, sequence)
        message.replace(at: 12, domain)
        let finished = message
        sequence &+= UInt32(truncatingIfNeeded: pendingRecords)
        reset()
        return finished
    }

    private mutating func reset() {
        message = [UInt8](repeating: 0, count: IPFIX.headerLength)
        openSet = nil
        pendingRecords = 0
    }

    /// Consecutive records of one template share a set.
    private mutating func append(_ body: [UInt8], toSet id: UInt16) -> Bool {
        let needsSet = openSet?.id != id
        let length = body.count + (needsSet ? IPFIX.setHeaderLength : 0)
        guard message.count + length <= messageLimit else { return false }
        if needsSet {
            closeSet()
            openSet = (message.count, id)
            message.put(id)
            message.put(UInt16(0))  // the length, known when it is closed
        }
        message.append(contentsOf: body)
        return true
    }

    private mutating func closeSet() {
        guard let set = openSet else { return }
        message.replace(at: set.start + 2, UInt16(clamping: message.count - set.start))
        openSet = nil
    }
}

extension FlowNames {
    fileprivate subscript(_ element: IPFIX.NameElement) -> String {
        switch element {
        case .instance: instance
        case .env: env
        case .app: app
        case .org: org
        }
    }
}

extension [UInt8] {
    fileprivate mutating func put<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for shift in stride(from: Value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    fileprivate mutating func replace<Value: FixedWidthInteger & UnsignedInteger>(at offset: Int, _ value: Value) {
        for index in 0..<Value.bitWidth / 8 {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> Value(Value.bitWidth - 8 - 8 * index))
        }
    }

    /// A field specifier (RFC 7011 §3.2): elements that are not the registry's have the top bit set and say whose.
    fileprivate mutating func put(_ field: IPFIX.Field, enterprise: UInt32) {
        put(field.space == .standard ? field.element : field.element | 0x8000)
        put(field.length)
        switch field.space {
        case .standard: break
        case .reverse: put(IPFIX.reverseEnterprise)
        case .ours: put(enterprise)
        }
    }

    /// A string of variable length (RFC 7011 §7), cut at a character so that its length takes one octet.
    fileprivate mutating func put(name: String) {
        var text = name.utf8.prefix(IPFIX.nameLimit)
        while text.count < name.utf8.count, let next = name.utf8.dropFirst(text.count).first, next & 0xC0 == 0x80 {
            text = text.dropLast()
        }
        append(UInt8(clamping: text.count))
        append(contentsOf: text)
    }
}
