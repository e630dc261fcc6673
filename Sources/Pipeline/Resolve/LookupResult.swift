import Pipeline

/// What one query brought.
package enum Answer<Record: Equatable & Sendable>: Equatable, Sendable {
    /// Records, and for how many seconds they hold.
    case found([Record], ttl: UInt32)
    /// The name is not there (NXDOMAIN), or has no record of this kind.
    case none(isGone: Bool)
    /// Nobody answered, or what came is no answer.
    case failed(String)
}

/// An SRV record.
package struct ServiceRecord: Equatable, Sendable {
    /// In lower case.
    package let target: String
    package let port: UInt16
    package let priority: UInt16
    package let weight: UInt16
    package init(target: String, port: UInt16, priority: UInt16, weight: UInt16) {
        self.target = target
        self.port = port
        self.priority = priority
        self.weight = weight
    }

    /// The most different targets of a service that are looked up.
    package static let targetLimit = 16
}

/// The addresses of a host, by family.
package struct HostAnswer: Equatable, Sendable {
    package var v4: Answer<IPAddress>
    package var v6: Answer<IPAddress>
    package init(v4: Answer<IPAddress>, v6: Answer<IPAddress>) {
        self.v4 = v4
        self.v6 = v6
    }
}

/// All that a lookup of a name brought.
package struct LookupResult: Equatable, Sendable {
    /// Of a service; nil: a host was asked for.
    package var service: Answer<ServiceRecord>?
    package var hosts: [String: HostAnswer]
    package init(service: Answer<ServiceRecord>? = nil, hosts: [String: HostAnswer] = [:]) {
        self.service = service
        self.hosts = hosts
    }

    /// The lookup itself could not be made.
    package static func failed(_ name: BackendName, _ why: String) -> LookupResult {
        switch name.kind {
        case .service: LookupResult(service: .failed(why))
        case .host: LookupResult(hosts: [name.host: HostAnswer(v4: .failed(why), v6: .failed(why))])
        }
    }
}

/// The least TTL of a message's answers, which c-ares does not give for SRV records.
package enum AnswerTTL {
    /// Nil: the message is cut, or has no answer.
    package static func least(_ message: UnsafeBufferPointer<UInt8>) -> UInt32? {
        guard message.count >= 12 else { return nil }
        var reader = Reader(message: message, place: 12)
        for _ in 0..<reader.word(at: 4) {
            guard reader.skipName(), reader.skip(4) else { return nil }
        }
        var least: UInt32?
        for _ in 0..<reader.word(at: 6) {
            guard reader.skipName(), reader.place + 10 <= message.count else { return nil }
            let ttl = UInt32(reader.word(at: reader.place + 4)) << 16 | UInt32(reader.word(at: reader.place + 6))
            // The first bit set means zero (RFC 2181, 8).
            let seconds = ttl >> 31 == 1 ? 0 : ttl
            least = min(least ?? seconds, seconds)
            guard reader.skip(10 + Int(reader.word(at: reader.place + 8))) else { return nil }
        }
        return least
    }

    private struct Reader {
        let message: UnsafeBufferPointer<UInt8>
        var place: Int

        /// The caller knows that it is there.
        func word(at index: Int) -> UInt16 { UInt16(message[index]) << 8 | UInt16(message[index + 1]) }

        mutating func skip(_ count: Int) -> Bool {
            place += count
            return place <= message.count
        }

        /// A pointer ends a name; it need not be followed.
        mutating func skipName() -> Bool {
            while place < message.count {
                let length = Int(message[place])
                if length >= 0xC0 { return skip(2) }
                guard length < 64, skip(1 + length) else { return false }
                if length == 0 { return true }
            }
            return false
        }
    }
}
