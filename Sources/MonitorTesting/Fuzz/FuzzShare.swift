internal import Glibc

/// A directory for a guest without rules: a few files, a link, a FIFO, a directory, and one beside it that nobody may reach. Gone with
/// this object, whatever the guest has made of it.
///
/// What a guest can make of it is bounded by the requests of one case, each of a few pages; see `RequestShapes.tame`. The program
/// that runs for long has a limit for the size of files too.
final class FuzzShare {
    private let root: String
    var path: String { root + "/share" }

    init() throws {
        var template = Array("/tmp/whfuzz-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw FuzzPeer.NoSocket(errno: errno) }
        root = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for name in ["outside", "share", "share/d", "share/d/e"] { unsafe mkdir(root + "/" + name, 0o755) }
        for name in ["outside/secret", "share/f", "share/d/g"] { write("text of \(name)", to: name) }
        unsafe symlink("../outside", path + "/l")
        unsafe mkfifo(path + "/p", 0o644)
    }

    deinit {
        empty(root)
        unsafe rmdir(root)
    }

    private func write(_ text: String, to name: String) {
        // The guest may have put a FIFO there, or a link out: nobody waits here, and what is outside is not written to.
        let file = unsafe open(root + "/" + name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0o644)
        guard file >= 0 else { return }
        let bytes = Array(text.utf8)
        _ = unsafe Glibc.write(file, bytes, bytes.count)
        close(file)
    }

    /// What the host's programs do meanwhile.
    func stir(_ random: inout SeededRandom) {
        switch random.below(8) {
        case 0: unsafe unlink(path + "/f")
        case 1: write("changed", to: "share/f")
        case 2: unsafe rename(path + "/d", path + "/x")
        case 3: unsafe rename(path + "/x", path + "/d")
        case 4:
            // The directory itself: the guest may have put there the link that leads out, and the host would be the one to follow it.
            let directory = unsafe open(path + "/d", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            guard directory >= 0 else { break }
            unsafe unlinkat(directory, "g", 0)
            unsafe symlinkat("../../outside/secret", directory, "g")
            close(directory)
        case 5: unsafe chmod(path, 0o755)
        default: break
        }
    }

    /// Whether what lies beside is as it was; where it is not, standard error says what is there.
    var isContained: Bool {
        var bytes = [UInt8](repeating: 0, count: 64)
        let file = unsafe open(root + "/outside/secret", O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        let count = file >= 0 ? unsafe Glibc.read(file, &bytes, bytes.count) : -1
        if file >= 0 { close(file) }
        let names = Self.names(in: root + "/outside").map { String(decoding: $0.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) }
        let text = count < 0 ? nil : String(decoding: bytes.prefix(count), as: UTF8.self)
        if names == ["secret"], text == "text of outside/secret" { return true }
        let said = Array("outside has \(names), and the secret is \(text ?? "not there")\n".utf8)
        _ = unsafe Glibc.write(STDERR_FILENO, said, said.count)
        return false
    }

    private static func names(in path: String) -> [[CChar]] { TemporaryDirectory.rawNames(in: Array(path.utf8CString)) }

    /// Directories of any depth come up by one level a round, so that no path becomes too long.
    private func empty(_ path: String) {
        var number = 0
        for _ in 0..<100_000 {
            let names = Self.names(in: path)
            if names.isEmpty { return }
            for name in names {
                let place = Array(path.utf8CString.dropLast()) + [47] + name
                if unsafe unlink(place) == 0 { continue }
                unsafe chmod(place, 0o700)
                let inside = String(decoding: place.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
                // A name that is no text is given one that is.
                let directory = "\(path)/-\(number)"
                number += 1
                guard unsafe rename(place, directory) == 0 else {
                    unsafe rmdir(inside)
                    continue
                }
                for below in Self.names(in: directory) {
                    let old = Array(directory.utf8CString.dropLast()) + [47] + below
                    if unsafe unlink(old) == 0 { continue }
                    unsafe rename(old, "\(path)/-\(number)")
                    number += 1
                }
                unsafe rmdir(directory)
            }
        }
    }
}
