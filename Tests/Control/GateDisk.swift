import PipelineState

/// A disk in memory on which a test says what becomes of each sync.
final class GateDisk: Disk, @unchecked Sendable {
    private let disk = ScratchDisk(isEmpty: true)
    /// Called on the thread that syncs, with how many there were before: what it returns.
    var syncing: (_ number: Int) -> Int32 = { _ in 0 }
    /// What making a file returns, before anything is made.
    var making: () -> Int32 = { 0 }
    /// What writing returns, before anything is written.
    var writing: () -> Int32 = { 0 }
    private(set) var syncs = 0

    static let directory = ScratchDisk.name
    var place: StatePlace {
        var settings = StateSettings()
        settings.reserveBytes = 0
        return StatePlace(directory: GateDisk.directory, disk: self, settings: settings)
    }

    func sync(_ file: Int32) -> Int32 {
        defer { syncs += 1 }
        return syncing(syncs)
    }

    func open(_ path: String, _ mode: DiskOpening) -> Int32 {
        let failed = mode == .empty ? making() : 0
        return failed < 0 ? failed : disk.open(path, mode)
    }

    func status(_ path: String, _ status: inout DiskStatus) -> Int32 { disk.status(path, &status) }
    func status(of file: Int32, _ status: inout DiskStatus) -> Int32 { disk.status(of: file, &status) }
    func makeDirectory(_ path: String) -> Int32 { disk.makeDirectory(path) }
    func names(in directory: String, _ names: inout [String]) -> Int32 { disk.names(in: directory, &names) }
    func setMode(_ path: String, _ mode: UInt32) -> Int32 { disk.setMode(path, mode) }
    func openDirectory(_ path: String) -> Int32 { disk.openDirectory(path) }
    func syncDirectory(_ path: String) -> Int32 { disk.syncDirectory(path) }
    func freeBytes(_ path: String) -> Int { disk.freeBytes(path) }
    func close(_ file: Int32) { disk.close(file) }
    func lock(_ file: Int32) -> Int32 { disk.lock(file) }
    func read(_ file: Int32, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        disk.read(file, buffer, at: offset)
    }
    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        let failed = writing()
        return failed < 0 ? failed : disk.write(file, bytes, at: offset)
    }
    func resize(_ file: Int32, to size: Int) -> Int32 { disk.resize(file, to: size) }
    func allocate(_ file: Int32, from offset: Int, count: Int) -> Int32 {
        disk.allocate(file, from: offset, count: count)
    }
    func map(_ file: Int32, size: Int, _ memory: inout UnsafeRawPointer?) -> Int32 {
        disk.map(file, size: size, &memory)
    }
    func unmap(_ memory: UnsafeRawPointer, size: Int) { disk.unmap(memory, size: size) }
    func hasLost(_ memory: UnsafeRawPointer) -> Bool { disk.hasLost(memory) }
    func rename(_ path: String, to other: String) -> Int32 { disk.rename(path, to: other) }
    func remove(_ path: String) -> Int32 { disk.remove(path) }
}
