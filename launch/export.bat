@echo off
rem Answers of a model as JSONL; stopped, it goes on.
rem     launch\export.bat --workdir=runs/tiny --model=teacher
rem Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
setlocal
cd /d "%~dp0.." || exit /b 1
if not defined PRESET set "PRESET=tiny"
python -m launch.export_answers "--config=configs/rl.py:%PRESET%" %*
exit /b %ERRORLEVEL%
