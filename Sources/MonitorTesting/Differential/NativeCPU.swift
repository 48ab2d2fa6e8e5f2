internal import CNative
internal import Glibc

/// Runs single instructions on the host's own processor, in ring 3 of a child process. See CNative.h.
///
/// Not for two threads at once.
@safe package final class NativeCPU {
    package enum Trouble: Error, CustomStringConvertible {
        case host(call: String, errno: Int32)
        /// The case of that number in the batch ended the child, or did not end.
        case lost(position: Int, hung: Bool)

        package var description: String {
            switch self {
            case .host(let call, let code): "\(call) failed with errno \(code)"
            case .lost(let position, let hung): "case \(position) of the batch \(hung ? "did not end" : "ended the child process")"
            }
        }
    }

    private let object: Int32
    private let shared: UnsafeMutablePointer<cnative_shared>
    private var process: (pid: Int32, socket: Int32)?

    package init() throws(Trouble) {
        var shared: UnsafeMutablePointer<cnative_shared>?
        object = unsafe cnative_map(&shared)
        guard object >= 0, let shared = unsafe shared else { throw .host(call: "memfd_create or mmap", errno: -object) }
        unsafe self.shared = unsafe shared
        // Whatever runs past the case's own bytes meets INT3.
        for position in 0..<4096 { unsafe cnative_code_page(shared)[position] = 0xCC }
    }

    deinit {
        stop()
        unsafe munmap(shared, MemoryLayout<cnative_shared>.size)
        close(object)
    }

    /// Slot `index` of the batch.
    package subscript(index: Int) -> CaseRecord { unsafe CaseRecord(cnative_slot(shared, min(max(index, 0), Sandbox.slots &- 1))) }

    /// What the read-only page holds: 4096 bytes.
    package func setReadOnly(_ bytes: [UInt8]) {
        for (position, byte) in bytes.prefix(4096).enumerated() { unsafe cnative_read_only(shared)[position] = byte }
    }

    /// Runs the first `count` slots, which hold the results afterwards.
    package func run(count: Int, milliseconds: Int32 = 10_000) throws(Trouble) {
        let socket = try start()
        let status = cnative_run(socket, UInt32(truncatingIfNeeded: count), milliseconds)
        guard status != 0 else { return }
        let position = Int(unsafe shared.pointee.progress)
        stop()
        throw .lost(position: position, hung: status == -ETIMEDOUT)
    }

    private func start() throws(Trouble) -> Int32 {
        if let process { return process.socket }
        var pid: Int32 = 0
        var socket: Int32 = -1
        let status = unsafe cnative_start(object, &pid, &socket)
        guard status == 0 else { throw .host(call: "fork", errno: -status) }
        process = (pid, socket)
        return socket
    }

    private func stop() {
        guard let process else { return }
        cnative_stop(process.pid, process.socket)
        self.process = nil
    }
}
