import CLinux
import Glibc
import Pipeline

/// A log as it lies on disk, mapped.
final class LogImage {
    let header: LogHeader
    let bytes: UnsafeRawBufferPointer
    /// What the checksums of its entries go on from.
    let salt: UInt32
    /// A byte of its header is wrong on disk.
    let isMended: Bool
    private let memory: UnsafeRawPointer
    private let disk: any Disk

    /// - Parameters:
    ///   - number: that its header should have; nil: one with a wrong byte is not put right.
    ///   - store: see ``LogHeader/store``.
    init(_ name: String, _ place: StatePlace, number: UInt64? = nil, store: UInt64 = 0) throws(FileFlaw) {
        let path = place.path(name)
        let disk = place.disk
        var status = DiskStatus()
        var failed = disk.status(path, &status)
        guard failed >= 0 else { throw FileFlaw.of(path, "looking at it", failed) }
        guard status.size >= StateFormat.logHeader else { throw .damaged("it ends within its header") }
        let file = disk.open(path, .read)
        guard file >= 0 else { throw FileFlaw.of(path, "opening it", file) }
        defer { disk.close(file) }
        var memory: UnsafeRawPointer?
        failed = disk.map(file, size: status.size, &memory)
        guard failed >= 0, let memory else { throw FileFlaw.of(path, "reading it", failed) }
        let all = UnsafeRawBufferPointer(start: memory, count: status.size)
        do throws(FileFlaw) {
            header = try LogHeader(all)
            isMended = false
        } catch {
            guard case .damaged = error, let number, let found = LogHeader.mended(all, number: number, store: store)
            else {
                disk.unmap(memory, size: status.size)
                throw error
            }
            header = found
            isMended = true
        }
        salt = header.encoded().withUnsafeBytes { LogReader($0).salt }
        self.disk = disk
        self.memory = memory
        bytes = UnsafeRawBufferPointer(start: memory, count: status.size)
    }

    deinit { disk.unmap(memory, size: bytes.count) }
}
