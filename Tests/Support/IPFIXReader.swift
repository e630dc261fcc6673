/// Reads IPFIX as RFC 7011 lays it out, knowing nothing of the encoder: templates come from the bytes. For tests.
package struct IPFIXReader {
    package struct Element: Hashable {
        package let id: UInt16, enterprise: UInt32
        package init(id: UInt16, enterprise: UInt32) {
            self.id = id
            self.enterprise = enterprise
        }
    }
    package struct Record: Equatable { package let template: UInt16, values: [Element: [UInt8]] }
    package struct Message {
        package let length: Int, exportTime: UInt32, sequence: UInt32, domain: UInt32, sets: [UInt16], records: [Record]
    }
    package struct Malformed: Error { package let what: String, offset: Int }

    package private(set) var templates: [UInt16: [(Element, UInt16)]] = [:]
    private var bytes: ArraySlice<UInt8> = []

    private mutating func number(_ count: Int) throws -> UInt64 {
        guard bytes.count >= count else {
            throw Malformed(what: "\(count) octets are missing", offset: bytes.startIndex)
        }
        defer { bytes = bytes.dropFirst(count) }
        return bytes.prefix(count).reduce(0) { $0 << 8 | UInt64($1) }
    }

    package init() {}

    package mutating func read(_ message: [UInt8]) throws -> Message {
        bytes = message[...]
        guard try number(2) == 10 else { throw Malformed(what: "version", offset: 0) }
        let length = Int(try number(2))
        guard length == message.count else { throw Malformed(what: "length \(length) of \(message.count)", offset: 2) }
        let time = UInt32(try number(4))
        let sequence = UInt32(try number(4))
        let domain = UInt32(try number(4))
        var sets: [UInt16] = []
        var records: [Record] = []
        while !bytes.isEmpty {
            let start = bytes.startIndex
            let id = UInt16(try number(2))
            let end = start + Int(try number(2))
            guard end >= start + 4, end <= message.count else { throw Malformed(what: "set length", offset: start) }
            sets.append(id)
            if id == 2 { try readTemplates(to: end) } else { try readData(id, to: end, &records) }
            guard bytes.startIndex == end else { throw Malformed(what: "a record reaches over its set", offset: start) }
        }
        return Message(
            length: length, exportTime: time, sequence: sequence, domain: domain, sets: sets, records: records)
    }

    private mutating func readTemplates(to end: Int) throws {
        while bytes.startIndex < end {
            let id = UInt16(try number(2))
            guard id >= 256 else { throw Malformed(what: "template id \(id)", offset: bytes.startIndex) }
            var fields: [(Element, UInt16)] = []
            for _ in 0..<(try number(2)) {
                let element = UInt16(try number(2))
                let length = UInt16(try number(2))
                let enterprise = element & 0x8000 != 0 ? UInt32(try number(4)) : 0
                fields.append((Element(id: element & 0x7FFF, enterprise: enterprise), length))
            }
            templates[id] = fields
        }
    }

    private mutating func readData(_ id: UInt16, to end: Int, _ records: inout [Record]) throws {
        guard let fields = templates[id] else { throw Malformed(what: "no template \(id)", offset: bytes.startIndex) }
        while bytes.startIndex < end {
            var values: [Element: [UInt8]] = [:]
            for (element, fixed) in fields {
                var length = Int(fixed)
                if fixed == 65535 {
                    length = Int(try number(1))
                    if length == 255 { length = Int(try number(2)) }
                }
                guard bytes.count >= length else {
                    throw Malformed(what: "value of \(element)", offset: bytes.startIndex)
                }
                guard values[element] == nil else {
                    throw Malformed(what: "\(element) twice", offset: bytes.startIndex)
                }
                values[element] = Array(bytes.prefix(length))
                bytes = bytes.dropFirst(length)
            }
            records.append(Record(template: id, values: values))
        }
    }
}

extension IPFIXReader.Record {
    package func number(_ id: UInt16, _ enterprise: UInt32 = 0) -> UInt64? {
        values[.init(id: id, enterprise: enterprise)].map { $0.reduce(0) { $0 << 8 | UInt64($1) } }
    }
    package func text(_ id: UInt16, _ enterprise: UInt32) -> String? {
        values[.init(id: id, enterprise: enterprise)].map { String(decoding: $0, as: UTF8.self) }
    }
}
