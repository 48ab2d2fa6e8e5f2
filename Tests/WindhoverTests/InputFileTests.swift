import Glibc
import Testing

@testable import Windhover

@Suite struct InputFileTests {
    let directory = TemporaryDirectory()

    func error(_ path: String) -> InputFileError? {
        failure { () throws(InputFileError) in try InputFile.check(path, role: "kernel") }
    }

    @Test func aGoodFilePasses() {
        #expect(error(directory.file("good", "x")) == nil)
    }

    @Test func whatCannotBeBootedIsNamed() {
        let missing = directory.path + "/nothing"
        #expect(error(missing) == .missing(role: "kernel", path: missing))
        #expect(error(missing)?.exitStatus == .noSuchFile)
        #expect(error(missing)?.description == "there is no kernel '\(missing)': give the path of a file that is there")
        let below = directory.file("good", "x") + "/below"
        #expect(error(below)?.exitStatus == .noSuchFile)
        #expect(error(directory.path) == .notAFile(role: "kernel", path: directory.path, kind: "a directory"))
        #expect(error(directory.path)?.exitStatus == .badConfiguration)
        let empty = directory.file("empty", "")
        #expect(error(empty) == .empty(role: "kernel", path: empty))
        #expect(error("/dev/null")?.exitStatus == .badConfiguration)
    }

    @Test(.timeLimit(.minutes(1))) func aPipeWithNoWriterDoesNotHoldUp() {
        let pipe = directory.path + "/pipe"
        mkfifo(pipe, 0o600)
        #expect(error(pipe) == .notAFile(role: "kernel", path: pipe, kind: "a pipe"))
    }

    @Test func noPermissionIsItsOwnStatus() {
        let error = InputFileError.unreadable(role: "initrd", path: "/x", errno: EACCES)
        #expect(error.exitStatus == .notPermitted)
        #expect(InputFileError.unreadable(role: "initrd", path: "/x", errno: EIO).exitStatus == .badConfiguration)
        if geteuid() != 0 {
            let secret = directory.file("secret", "x", mode: 0)
            #expect(self.error(secret)?.exitStatus == .notPermitted)
        }
    }
}
