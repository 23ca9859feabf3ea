@echo off
rem Two results on the same problems, with a paired test.
rem     launch\compare.bat --workdir=runs/tiny teacher student
rem Arguments are passed on; paths count from the repository's root.
setlocal
cd /d "%~dp0.." || exit /b 1
python -m launch.compare %*
exit /b %ERRORLEVEL%
