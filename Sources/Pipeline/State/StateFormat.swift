import CLinux
import Glibc
import Pipeline

/// What stands where in the files. All numbers are little-endian.
enum StateFormat {
    /// Of snapshots and logs alike. The first 16 bytes and the place of a header's checksum never change, so that a newer
    /// file is told from a damaged one.
    static let version: UInt32 = 1
    static let magic: UInt64 = 0x7461_7473_6570_6970  // "pipestat"

    static let snapshotHeader = 4096
    static let logHeader = 64
    static let entryHeader = 32
    /// What one checksum of a snapshot covers.
    static let block = 65536

    static let longestID = 1024
    static let longestValue = 64 << 20
    static let longestBatch = 256 << 20

    enum Kind: UInt32 {
        case snapshot = 1
        case log = 2
        case derived = 3
    }

    /// The version of a file that begins with this header, if it is a newer one.
    static func newerVersion(_ header: UnsafeRawBufferPointer) -> UInt32? {
        guard isWhole(header), let base = header.baseAddress else { return nil }
        let version = base.number(8, as: UInt32.self)
        return version > StateFormat.version ? version : nil
    }

    // MARK: Headers: magic u64 | version u32 | kind u32 | … | checksum u32

    static func header(_ kind: Kind, bytes count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes.withUnsafeMutableBytes { to in
            to.put(magic, at: 0)
            to.put(version, at: 8)
            to.put(kind.rawValue, at: 12)
            fill(to)
            to.put(checksum(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(to).dropLast(4))), at: count - 4)
        }
        return bytes
    }

    /// It is a header of this version, or an earlier one.
    static func check(_ header: UnsafeRawBufferPointer, _ kind: Kind) throws(FileFlaw) {
        guard isWhole(header), let base = header.baseAddress, base.number(12, as: UInt32.self) == kind.rawValue
        else { throw .damaged("its header does not match its checksum") }
        if let version = newerVersion(header) { throw .newer(version) }
    }

    static func isWhole(_ header: UnsafeRawBufferPointer) -> Bool {
        guard header.count >= 64, let base = header.baseAddress else { return false }
        return base.number(0, as: UInt64.self) == magic
            && base.number(header.count - 4, as: UInt32.self)
                == checksum(UnsafeRawBufferPointer(rebasing: header.dropLast(4)))
    }

    @inline(__always) static func padded(_ count: Int) -> Int { (count &+ 7) & ~7 }

    // MARK: Blocks, which stand behind a header of 4096 bytes, with their checksums behind them

    /// How many there are of so many bytes.
    static func blocks(_ bytes: Int) -> Int { (bytes + block - 1) / block }

    /// Every block against its checksum.
    /// - Parameter sum: of the checksums.
    static func checkBlocks(_ base: UnsafeRawPointer, until end: Int, sum: UInt32) throws(FileFlaw) {
        let blocks = blocks(end - snapshotHeader)
        let table = UnsafeRawBufferPointer(start: base + end, count: blocks * 4)
        guard checksum(table) == sum else { throw .damaged("its list of checksums does not match its checksum") }
        let step = 48
        var sums = [UInt32](repeating: 0, count: step)
        var first = 0
        while first < blocks {
            let offset = snapshotHeader + first * block
            let last = min(end, offset + step * block)
            cl_crc32c_pieces(base + offset, last - offset, block, &sums)
            for index in 0..<min(step, blocks - first)
            where sums[index] != base.number(end + (first + index) * 4, as: UInt32.self) {
                throw .damaged("its block at byte \(offset + index * block) does not match its checksum")
            }
            first += step
        }
    }
}

extension UnsafeRawPointer {
    @inline(__always) func number<Value: FixedWidthInteger>(_ offset: Int, as: Value.Type) -> Value {
        Value(littleEndian: loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
}

extension UnsafeMutableRawBufferPointer {
    func put(_ value: some FixedWidthInteger, at offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: type(of: value))
    }
}

func checksum(_ bytes: UnsafeRawBufferPointer, after crc: UInt32 = 0) -> UInt32 {
    cl_crc32c(crc, bytes.baseAddress, bytes.count)
}

/// What is wrong with a file.
enum FileFlaw: Error {
    case damaged(String)
    case newer(UInt32)
    case failed(StateFault)
}

/// A record as it stands in a snapshot, in a log and in memory, at a multiple of 8:
///
///     value's bytes u32 | id's bytes u16 | kind u8 | flags u8 | id, filled up to 8 | value, filled up to 8
struct Record {
    static let header = 8
    /// The id is gone; no value.
    static let deletion: UInt8 = 1

    let base: UnsafeRawPointer

    @inline(__always) var valueCount: Int { Int(base.number(0, as: UInt32.self)) }
    @inline(__always) var idCount: Int { Int(base.number(4, as: UInt16.self)) }
    @inline(__always) var kind: UInt8 { base.load(fromByteOffset: 6, as: UInt8.self) }
    @inline(__always) var isDeletion: Bool { base.load(fromByteOffset: 7, as: UInt8.self) & Record.deletion != 0 }
    @inline(__always) var id: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(
            start: (base + Record.header).assumingMemoryBound(to: UInt8.self), count: idCount)
    }
    @inline(__always) var value: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + Record.header + StateFormat.padded(idCount), count: valueCount)
    }
    @inline(__always) var byteCount: Int { Record.byteCount(id: idCount, value: valueCount) }

    @inline(__always) static func byteCount(id: Int, value: Int) -> Int {
        header &+ StateFormat.padded(id) &+ StateFormat.padded(value)
    }

    private init(_ base: UnsafeRawPointer) { self.base = base }

    /// Bytes that were looked at before.
    init(known base: UnsafeRawPointer) { self.base = base }

    /// The record at `base`, if one with sense in it ends within `limit` bytes.
    @inline(__always) init?(at base: UnsafeRawPointer, limit: Int) {
        guard limit >= Record.header else { return nil }
        self.init(base)
        guard kind != 0, idCount > 0, idCount <= StateFormat.longestID, valueCount <= StateFormat.longestValue,
            byteCount <= limit
        else { return nil }
    }

    static func writeHeader(
        kind: UInt8, id: Int, value: Int, flags: UInt8, to bytes: UnsafeMutableRawBufferPointer, at offset: Int
    ) {
        bytes.put(UInt32(truncatingIfNeeded: value), at: offset)
        bytes.put(UInt16(truncatingIfNeeded: id), at: offset + 4)
        bytes.put(kind, at: offset + 6)
        bytes.put(flags, at: offset + 7)
    }

    /// By kind, then by the bytes of the id: less than 0, 0, more than 0.
    @inline(__always) func compare(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>) -> Int {
        if self.kind != kind { return Int(self.kind) - Int(kind) }
        let own = self.id
        if let left = own.baseAddress, let right = id.baseAddress {
            let order = memcmp(left, right, min(own.count, id.count))
            if order != 0 { return Int(order) }
        }
        return own.count - id.count
    }
    @inline(__always) func compare(_ other: Record) -> Int { compare(other.kind, other.id) }

    @inline(__always) func hash(_ seed: HashSeed) -> UInt64 { SipHash.hash(id, domain: kind, seed: seed) }
}

extension HashSeed {
    /// - Parameter secret: 16 bytes.
    init(secret: [UInt8]) {
        self = secret.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress, bytes.count >= 16 else { return HashSeed(0, 0) }
            return HashSeed(base.number(0, as: UInt64.self), base.number(8, as: UInt64.self))
        }
    }
}
