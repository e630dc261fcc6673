import Pipeline
import PipelineRouting
import PipelineText

/// Why bytes are not a line of the journal.
package struct JournalFlaw: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

/// What binds a line to the others: its number, its hash, and that of the line before it.
///
/// A line is `{"seq":N,…,"prev":"HASH","hash":"HASH"}`. Its hash is that of all that stands before `,"hash":`, so it
/// covers the hash of the line before, and by that everything before.
package struct JournalLink: Equatable, Sendable {
    package let number: UInt64
    package let hash: JournalHash
    /// Of the line before.
    let previous: JournalHash

    /// Where a chain begins.
    package static let none = JournalLink(number: 0, hash: .none, previous: .none)

    private static let head = Array("{\"seq\":".utf8)
    private static let previousKey = Array(",\"prev\":\"".utf8)
    private static let hashKey = Array("\",\"hash\":\"".utf8)
    private static let end = Array("\"}".utf8)
    private static let tailCount =
        previousKey.count + JournalHash.textCount + hashKey.count + JournalHash.textCount + end.count

    init(number: UInt64, hash: JournalHash, previous: JournalHash) {
        (self.number, self.hash, self.previous) = (number, hash, previous)
    }

    /// - Parameter line: without its line break.
    init(_ line: UnsafeRawBufferPointer) throws(JournalFlaw) {
        guard line.count <= JournalLine.limit else { throw JournalFlaw("it is longer than any line of a journal") }
        guard line.count >= JournalLink.head.count + 2 + JournalLink.tailCount else {
            throw JournalFlaw("it is not a line of a journal")
        }
        var rest = JournalBytes(line, from: line.count - JournalLink.tailCount)
        guard rest.take(JournalLink.previousKey), let previous = rest.takeHash(), rest.take(JournalLink.hashKey),
            let hash = rest.takeHash(), rest.take(JournalLink.end)
        else { throw JournalFlaw("it does not end in a hash, as a line of a journal does") }
        // Its own hash stands behind the quote that ends the other's.
        let covered = line.count - JournalLink.end.count - JournalHash.textCount - JournalLink.hashKey.count + 1
        guard SHA256.hash(UnsafeRawBufferPointer(rebasing: line[..<covered])) == hash else {
            throw JournalFlaw("its hash is not that of its text")
        }
        var start = JournalBytes(line, from: 0)
        guard start.take(JournalLink.head), let number = start.takeNumber() else {
            throw JournalFlaw("it does not begin with its number")
        }
        self.init(number: number, hash: hash, previous: previous)
    }
}

/// A place in bytes, from which words are taken.
private struct JournalBytes {
    private let bytes: UnsafeRawBufferPointer
    private var place: Int

    init(_ bytes: UnsafeRawBufferPointer, from place: Int) { (self.bytes, self.place) = (bytes, place) }

    mutating func take(_ word: [UInt8]) -> Bool {
        guard bytes.count - place >= word.count, bytes[place..<place + word.count].elementsEqual(word) else {
            return false
        }
        place += word.count
        return true
    }

    mutating func takeHash() -> JournalHash? {
        guard bytes.count - place >= JournalHash.textCount else { return nil }
        defer { place += JournalHash.textCount }
        return JournalHash(UnsafeRawBufferPointer(rebasing: bytes[place..<place + JournalHash.textCount]))
    }

    /// Without a zero in front, up to a `,`.
    mutating func takeNumber() -> UInt64? {
        let digits = bytes[place...].prefix { (0x30...0x39).contains($0) }
        guard let number = UInt64(String(decoding: digits, as: UTF8.self)), digits.first != 0x30 || digits.count == 1
        else { return nil }
        place += digits.count
        return take([UInt8(ascii: ",")]) ? number : nil
    }
}

/// A line of the journal, read.
package struct JournalLine: Sendable {
    /// Bytes of a line, at most: an entry's texts, each byte of them escaped, and the rest.
    package static let limit = 16384
    /// What a file says of itself.
    static let format = "pipelined.journal/1"

    package let link: JournalLink
    package let time: String
    /// One that this version does not know reads as nil.
    package let outcome: JournalEntry.Outcome?
    private let fields: FlatJSON

    private static let names: [StaticString] = [
        "seq", "time", "outcome", "source", "actor", "uid", "pid", "command", "request", "revision", "what", "why",
        "node_pid", "format", "file", "last_file_sha256", "lost", "cut_bytes", "cut_sha256",
    ]

    /// - Parameter line: without its line break.
    package init(_ line: [UInt8]) throws(JournalFlaw) {
        let result = line.withUnsafeBytes { bytes -> Result<JournalLink, JournalFlaw> in
            do throws(JournalFlaw) { return .success(try JournalLink(bytes)) } catch { return .failure(error) }
        }
        link = try result.get()
        do throws(JSONError) {
            fields = try FlatJSON.read(line, names: JournalLine.names)
        } catch {
            throw JournalFlaw("it is not JSON: \(error)")
        }
        guard let time = fields.string("time"), let outcome = fields.string("outcome"),
            fields["seq"] == .number(link.number)
        else { throw JournalFlaw("it has no number, no time or no outcome") }
        self.time = time
        self.outcome = JournalEntry.Outcome(rawValue: outcome)
    }

    package func text(_ name: String) -> String? { fields.string(name) }
    package func number(_ name: String) -> UInt64? {
        if case .number(let value)? = fields[name] { value } else { nil }
    }

    /// Of a file's first line: which file it is, and the hash of the one before; nil: this is not one.
    var opening: (format: String, file: UInt64, last: JournalHash?)? {
        guard outcome == .opened, let format = text("format"), let file = number("file") else { return nil }
        return (format, file, text("last_file_sha256").flatMap { JournalHash($0) })
    }
}

// MARK: Writing

extension JournalLink {
    /// The next line of the chain, its line break included.
    /// - Parameters:
    ///   - fields: what comes behind number, time and outcome.
    package func next(
        _ outcome: JournalEntry.Outcome, time: UInt64, _ fields: (inout JSONLine) -> Void
    ) -> (line: [UInt8], link: JournalLink) {
        let number = self.number &+ 1
        var line = JSONLine()
        line.open()
        line.field("seq", number)
        line.key("time")
        line.timestamp(time)
        line.field("outcome", outcome.rawValue)
        fields(&line)
        line.field("prev", hash.description)
        let own = line.bytes.withUnsafeBytes { SHA256.hash($0) }
        line.field("hash", own.description)
        line.close()
        line.newline()
        return (line.bytes, JournalLink(number: number, hash: own, previous: hash))
    }
}

extension JournalEntry {
    package func write(_ line: inout JSONLine) {
        line.field("source", source)
        if let actor { line.field("actor", actor) }
        if let peer {
            line.field("uid", UInt64(peer.user))
            line.field("pid", Int(peer.process))
            if let command = peer.command { line.field("command", command) }
        }
        if let request { line.field("request", request) }
        if let revision { line.field("revision", revision) }
        line.field("what", what)
        if let why { line.field("why", why) }
    }
}
