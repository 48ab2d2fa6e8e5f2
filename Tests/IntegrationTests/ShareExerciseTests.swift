import Foundation
import Testing

@testable import Windhover

extension SlowTiers {
    /// A file system in every way that programs use one, through a share and on the host: what comes of it must be the same.
    @Suite(.serialized) struct ShareExerciseTests {
        /// Small files among the rest. WINDHOVER_SMALL_FILES has more.
        private static var smallFiles: Int { ProcessInfo.processInfo.environment["WINDHOVER_SMALL_FILES"].flatMap { Int($0) } ?? 3000 }

        /// Ten milliseconds more for each of them.
        private static var deadline: Double { Exec.deadline + Double(smallFiles) / 100 }

        /// Everything that there is to know of a tree but for times and the sizes of directories; then a sum of each file's contents.
        private static let look = """
            cd "$1" || exit
            find . -type d -printf '%P %y %m %U:%G\\n' -o -printf '%P %y %m %n %s %U:%G %l\\n' | LC_ALL=C sort
            find . -type f ! -name sparse -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
            """

        /// A repository of some hundred files, cloned, changed and looked at. Its identities depend on every byte.
        private static let git = """
            cd "$1" || exit
            export HOME="$1" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
            git init -q -b main source && cd source || exit
            for d in 1 2 3 4 5 6 7 8; do mkdir -p "d$d/e"; for f in 1 2 3 4 5 6 7 8 9; do seq "$d" "$d$f" > "d$d/e/f$f"; done; done
            ln -s d1/e/f1 link; chmod 755 d2/e/f2
            git add -A && git commit -q -m first && git gc -q
            cd .. && git clone -q source copy && cd copy || exit
            git rev-parse HEAD; git status --porcelain
            echo more >> d3/e/f3; rm d4/e/f4; echo new > new; git mv d5/e/f5 moved
            git status --porcelain; git diff --stat
            git commit -q -a -m second && git rev-parse HEAD && git push -q origin HEAD:other && git fsck 2>&1
            git -C ../source log --format=%H other | head -n 3
            """

        private struct Results: Equatable {
            var files: String
            var git: String
        }

        @Test func aShareIsAsTheHostsOwn() async throws {
            try Exec.needs("git", package: "git")
            let scratch = try ExecScratch()
            let program = scratch.file("files")
            let built = try await ChildProcess.run(
                ["clang", "-O1", "-o", program, Repository.root + "/Tests/IntegrationTests/rig/files.c"], deadline: 60)
            try #require(built.status == 0, "\(built.summary)")
            let script = "'\(program)' \"$1/files\" \(Self.smallFiles) && echo @git && sh -c '\(Self.git.replacingOccurrences(of: "'", with: "'\\''"))' sh \"$1/git\""
            for place in ["host", "guest"] {
                for part in ["files", "git"] { try scratch.directory("\(place)/\(part)") }
            }
            let host = try await ChildProcess.run(["sh", "-c", script, "sh", scratch.file("host")], deadline: Self.deadline)
            try #require(host.status == 0, "\(host.summary)")
            // At the same place, of which git keeps a note: the guest sees its own directory there.
            let guest = try await Exec.run(
                ["--share", "\(scratch.file("guest")):\(scratch.file("host"))"], ["sh", "-c", script, "sh", scratch.file("host")],
                deadline: Self.deadline)
            print("\(Self.smallFiles) small files, and all else: \(host.seconds) s on the host, \(guest.seconds) s in the guest")
            #expect(guest.status == 0 && guest.error.isEmpty, "\(guest.summary)")
            let (expected, found) = (ExpectedOutput.lines(of: host.output), ExpectedOutput.lines(of: guest.output))
            for (number, line) in expected.enumerated() where number >= found.count || found[number] != line {
                Issue.record("line \(number): '\(number < found.count ? found[number] : "nothing")' in the guest, '\(line)' on the host")
            }
            #expect(expected.count == found.count && expected.count > 90, "\(guest.summary)")

            // What is there afterwards, seen from the host.
            for part in ["files", "git/source/d1", "git/copy/d3"] {
                let trees = try await [
                    ChildProcess.run(["sh", "-c", Self.look, "sh", scratch.file("host/\(part)")], deadline: Self.deadline),
                    ChildProcess.run(["sh", "-c", Self.look, "sh", scratch.file("guest/\(part)")], deadline: Self.deadline),
                ]
                #expect(trees[0].output == trees[1].output && !trees[0].output.isEmpty, "\(part) differs")
            }
            let sparse = try await ChildProcess.run(
                ["sh", "-c", "cd '\(scratch.path)' && cmp host/files/sparse guest/files/sparse && du -k guest/files/sparse"], deadline: Self.deadline)
            #expect(sparse.status == 0, "\(sparse.summary)")
            let kept = sparse.output.split(separator: "\t").first.flatMap { Int($0) } ?? .max
            #expect(kept < 4096, "a gibibyte with three islands takes \(kept) KiB")
        }
    }
}
