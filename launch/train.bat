@echo off
rem All stages of a run: skips what is complete, goes on with what is not.
rem     launch\train.bat --workdir=runs/try --config.rl.steps=50
rem Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
setlocal
cd /d "%~dp0.." || exit /b 1
if not defined PRESET set "PRESET=tiny"
python -m launch.main "--config=configs/rl.py:%PRESET%" %*
exit /b %ERRORLEVEL%
